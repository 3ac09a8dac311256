// Goes past every limit of its stage, and says how far it came. Linked statically: what runs it has
// nothing but it. Each line of its output is a measure: a name, and numbers.
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MOST_FORKS = 200, BURN_SECONDS = 2, EATERS = 4, EATEN_BYTES = 48 << 20 };

static double seconds(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

// How many children can be at once.
static void forks(void) {
    pid_t child[MOST_FORKS];
    int made = 0;
    while (made < MOST_FORKS) {
        pid_t pid = fork();
        if (pid < 0) break;
        if (pid == 0) { pause(); _exit(0); }
        child[made++] = pid;
    }
    printf("forks %d\n", made);
    fflush(stdout);
    for (int i = 0; i < made; i++) kill(child[i], SIGKILL);
    for (int i = 0; i < made; i++) waitpid(child[i], NULL, 0);
}

static void *burn(void *until) {
    volatile unsigned long turns = 0;
    while (seconds(CLOCK_MONOTONIC) < *(double *)until)
        for (int i = 0; i < 10000; i++) turns++;
    return NULL;
}

// How much processor time two threads get in some seconds.
static void cpu(void) {
    double begun = seconds(CLOCK_MONOTONIC), until = begun + BURN_SECONDS;
    double used = seconds(CLOCK_PROCESS_CPUTIME_ID);
    pthread_t other;
    if (pthread_create(&other, NULL, burn, &until) != 0) { puts("cpu none"); return; }
    burn(&until);
    pthread_join(other, NULL);
    used = seconds(CLOCK_PROCESS_CPUTIME_ID) - used;
    printf("cpu %.3f of %.3f\n", used, seconds(CLOCK_MONOTONIC) - begun);
    fflush(stdout);
}

// How many of some children, none of which takes much by itself, hold their memory at once. Each
// holds what it has until the parent has heard of all: a byte of each that has its memory, the end of the
// pipe of each that the kernel has killed.
static void memory(void) {
    int let_go[2], holding = 0, status;
    char byte = 0;
    if (pipe(let_go) != 0) { puts("eaters none"); return; }
    for (int i = 0; i < EATERS; i++) {
        int begun[2];
        if (pipe(begun) != 0) break;
        if (fork() == 0) {
            close(let_go[1]);
            close(begun[0]);
            // Volatile, or a compiler sees that nobody reads what is written.
            volatile char *bytes = malloc(EATEN_BYTES);
            if (!bytes) _exit(1);
            for (int at = 0; at < EATEN_BYTES; at += 1024) bytes[at] = 1;
            write(begun[1], &byte, 1);
            read(let_go[0], &byte, 1);
            _exit(0);
        }
        close(begun[1]);
        read(begun[0], &byte, 1);
        close(begun[0]);
    }
    close(let_go[1]);
    while (wait(&status) > 0) if (status == 0) holding++;
    printf("eaters %d of %d held\n", holding, EATERS);
    fflush(stdout);
}

static void show(const char *path) {
    FILE *file = fopen(path, "r");
    char line[512];
    while (file && fgets(line, sizeof line, file)) printf("%s %s", path, line);
    if (file) fclose(file);
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "wait") == 0) { puts("waiting"); fflush(stdout); pause(); }
    show("/proc/self/cgroup");
    forks();
    cpu();
    memory();
    return 0;
}
