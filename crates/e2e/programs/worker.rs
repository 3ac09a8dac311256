//! Work that behaves as `BEHAVIOUR` says: as a command, or as a function of the Lambda Runtime API
//! where there is one. Without dependencies, so that `rustc` alone makes it, statically.

use std::{
    env,
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::{IpAddr, TcpStream, UdpSocket},
    os::{fd::AsRawFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::{self, Command},
    thread,
    time::Duration,
};

#[path = "worker/steering.rs"]
mod steering;

use steering::{column, name, steer, steer_rows, steering};

fn main() {
    let behaviour = env::var("BEHAVIOUR").unwrap_or_default();
    match behaviour.as_str() {
        "crash at start" => process::abort(),
        "sleep" => hang(),
        _ => {}
    }
    match env::var("AWS_LAMBDA_RUNTIME_API") {
        Ok(api) => loop {
            serve(&api, &behaviour);
        },
        Err(_) => {
            let [input, output] = ["BARECOUNT_INPUT_DIR", "BARECOUNT_OUTPUT_DIR"].map(variable);
            if let Err(status) = work(&behaviour, Path::new(&input), Path::new(&output)) {
                process::exit(status);
            }
        }
    }
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("{name} is set"))
}

/// Takes one event, and answers it.
fn serve(api: &str, behaviour: &str) {
    let (id, event) = next(api);
    let output = field(&event, "output_dir");
    let path = format!("/2018-06-01/runtime/invocation/{id}");
    match behaviour {
        "answer never" => hang(),
        "answer twice" => {
            copy_rows(Path::new(&output));
            post(api, &format!("{path}/response"), "", "{\"first\":true}");
            post(api, &format!("{path}/response"), "", "{\"second\":true}");
        }
        "leak and report" => {
            let secrets = PathBuf::from(field(&event, "secrets_dir"));
            leak(&secrets, Path::new(&output));
            let value = fs::read_to_string(secrets.join("token")).expect("it can be read");
            let body = format!("{{\"errorType\":\"Odd\",\"errorMessage\":\"not {value}\"}}");
            post(api, &format!("{path}/error"), "", &body);
        }
        "report EX_DATAERR" | "report EX_TEMPFAIL" | "report EX_NOPERM" | "report EX_CONFIG"
        | "report OddError" => {
            let kind = behaviour.trim_start_matches("report ");
            let body = format!("{{\"errorType\":\"{kind}\",\"errorMessage\":\"row 7 is odd\"}}");
            let header = format!("Lambda-Runtime-Function-Error-Type: {kind}\r\n");
            post(api, &format!("{path}/error"), &header, &body);
        }
        "steer and report" => {
            let words = in_json(&steering(100_000));
            let body = format!("{{\"errorType\":\"{words}\",\"errorMessage\":\"{words}\"}}");
            post(api, &format!("{path}/error"), "", &body);
        }
        _ => match work(behaviour, Path::new(&field(&event, "input_dir")), Path::new(&output)) {
            Ok(()) => post(api, &format!("{path}/response"), "", "{}"),
            Err(status) => process::exit(status),
        },
    }
}

fn work(behaviour: &str, input: &Path, output: &Path) -> Result<(), i32> {
    let secrets = PathBuf::from(env::var("BARECOUNT_SECRETS_DIR").unwrap_or_default());
    match behaviour {
        "" => copy_rows(output),
        "crash" => process::abort(),
        "hang" => hang(),
        "fork bomb" => fork_bomb(),
        "eat memory" => eat_memory(),
        "print a gigabyte" => {
            print_much(1 << 30);
            copy_rows(output);
        }
        "print a gigabyte and fail" => {
            print_much(1 << 30);
            println!("\nrow 7 is odd");
            return Err(3);
        }
        "linger" => {
            linger();
            copy_rows(output);
        }
        "tell" => {
            println!("in {}", env::current_dir().unwrap_or_default().display());
            println!("MARK={} OTHER={}", variable("MARK"), variable("OTHER"));
            copy_rows(output);
        }
        "read secrets" => {
            for name in list(&secrets) {
                let value = fs::read(secrets.join(&name)).expect("a secret can be read");
                println!("{name} has {} bytes, sum {}", value.len(), sum(&value));
            }
            let written = fs::write(secrets.join("own"), "x");
            println!("written: {}", written.is_ok());
            if let Ok(value) = env::var("TOKEN") {
                println!("TOKEN has {} bytes, sum {}", value.len(), sum(value.as_bytes()));
            }
            copy_rows(output);
        }
        "leak" | "leak and fail" | "leak and linger" => {
            leak(&secrets, output);
            if behaviour.ends_with("linger") {
                linger();
            }
            copy_rows(output);
            if behaviour.ends_with("fail") {
                return Err(1);
            }
        }
        "leave closed folders" | "leave closed folders and linger" => {
            copy_rows(output);
            leave_closed(output);
            if behaviour.ends_with("linger") {
                linger();
            }
        }
        "leave a deep folder" | "leave a deep folder and linger" => {
            copy_rows(output);
            leave_deep(output);
            if behaviour.ends_with("linger") {
                linger();
            }
        }
        "lease inputs and linger" => {
            let leases = lease_all(input);
            println!("{} of {} leased", leases.iter().flatten().count(), leases.len());
            linger();
            let folder = output.join(variable("DATASET"));
            fs::create_dir_all(&folder).expect("an output can be made");
            fs::write(folder.join("part.csv"), "id,amount\n1,1.50\n").expect("it can be written");
        }
        "count" => {
            let found = count_up();
            copy_rows(output);
            if found == 0 {
                return Err(75);
            }
        }
        "count and fail" => {
            count_up();
            copy_rows(output);
            return Err(65);
        }
        "fail once" => {
            copy_rows(output);
            if variable("BARECOUNT_ATTEMPT") == "1" {
                return Err(75);
            }
        }
        "probe" => {
            probe();
            copy_rows(output);
        }
        "reach out" | "reach out and hang" | "reach out and fail once" => {
            for target in variable("TARGETS").split(' ') {
                println!("{target}: {}", reach(target));
            }
            if behaviour.ends_with("hang") {
                hang();
            }
            copy_rows(output);
            if behaviour.ends_with("fail once") && variable("BARECOUNT_ATTEMPT") == "1" {
                return Err(75);
            }
        }
        "steer" => steer(output),
        "steer and fail" => {
            println!("{}", steering(5 << 20));
            eprintln!("{}", steering(100));
            return Err(65);
        }
        "steer by columns" => steer_rows(output, &format!("id,{}", column())),
        "steer by a file" => {
            steer_rows(output, "id,text");
            let folder = output.join(variable("DATASET"));
            fs::write(folder.join(format!("{}.csv", name())), "id,text\nodd,x\n").expect("it can be written");
        }
        "carry" | "carry and fail" => {
            carry(output);
            if behaviour.ends_with("fail") {
                return Err(1);
            }
        }
        "fill the output" => fill(output, 1 << 20),
        "fill the output with empty files" => fill(output, 0),
        "take every inode" => take_inodes(output),
        "fill the checkpoint" => fill(Path::new(&variable("BARECOUNT_CHECKPOINT_DIR")), 1 << 20),
        "fill the cache" => fill(Path::new(&variable("BARECOUNT_CACHE_DIR")), 1 << 20),
        "write one large file" => write_large(output),
        "write holes" => write_holes(output),
        other => match other.strip_prefix("exit ").and_then(|status| status.parse().ok()) {
            Some(status) => return Err(status),
            None => panic!("unknown behaviour `{other}`"),
        },
    }
    Ok(())
}

/// Lets the prober beside this program try what the file that `PROBES` names lists.
fn probe() {
    let own = env::current_exe().expect("a program knows where it is");
    let folder = own.parent().unwrap_or(Path::new("/"));
    // The prober is linked dynamically, and where it runs there are no libraries.
    let status = Command::new(folder.join("loader"))
        .arg("--library-path")
        .args([folder, &folder.join("prober"), &folder.join(variable("PROBES"))])
        .status()
        .expect("the prober can be started");
    assert!(status.success(), "the prober ended with {status}");
}

/// Asks `protocol://host:port` for something, and says what came of it.
fn reach(target: &str) -> String {
    let told = || -> io::Result<String> {
        let (protocol, rest) = target.split_once("://").ok_or(io::ErrorKind::InvalidInput)?;
        let (host, port) = rest.rsplit_once(':').ok_or(io::ErrorKind::InvalidInput)?;
        let address = match host.parse() {
            Ok(address) => address,
            Err(_) => look_up(host)?,
        };
        let port = port.parse().map_err(io::Error::other)?;
        if protocol == "udp" {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.connect((address, port))?;
            socket.send(b"hello")?;
            socket.set_read_timeout(Some(Duration::from_secs(5)))?;
            let mut answer = [0; 512];
            let length = socket.recv(&mut answer)?;
            return Ok(String::from_utf8_lossy(&answer[..length]).into_owned());
        }
        let mut stream = TcpStream::connect((address, port))?;
        write!(stream, "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.lines().last().unwrap_or_default().to_owned())
    };
    told().unwrap_or_else(|error| format!("refused: {error}"))
}

/// Looks a name up as programs do, but without a C library: an A query (RFC 1035) to the name
/// server that `/etc/resolv.conf` names.
fn look_up(name: &str) -> io::Result<IpAddr> {
    let settings = fs::read_to_string("/etc/resolv.conf")?;
    let server = settings.lines().find_map(|line| line.strip_prefix("nameserver "));
    let server = server.ok_or(io::ErrorKind::NotFound)?;
    let mut query = vec![0x12, 0x34, 0x01, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend_from_slice(label.as_bytes());
    }
    query.extend_from_slice(&[0, 0, 1, 0, 1]);
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    socket.send_to(&query, (server.trim(), 53))?;
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer)?;
    let (code, answers) = (answer[3] & 0x0f, answer[7]);
    if code != 0 || answers == 0 {
        return Err(io::Error::other(format!("name server says {code}")));
    }
    // The only answer's address is what the packet ends with, but for an option record.
    let data = &answer[query.len() + 12..length.min(query.len() + 16)];
    let data: [u8; 4] = data.try_into().map_err(io::Error::other)?;
    Ok(data.into())
}

/// Counts on from the number in the checkpoint, and says which it found: 0 if there is none.
fn count_up() -> u64 {
    let state = PathBuf::from(variable("BARECOUNT_CHECKPOINT_DIR")).join("pages/state");
    let found = fs::read_to_string(&state).unwrap_or_default();
    let found = found.parse().unwrap_or(0);
    println!("found {found}");
    fs::create_dir_all(state.parent().unwrap_or(Path::new("/"))).expect("a folder can be made");
    fs::write(&state, (found + 1).to_string()).expect("the checkpoint can be written");
    found
}

/// Leaves the word of its input wherever work can leave anything: in its log, its checkpoint, its
/// cache, its scratch folder, a row of its dataset and a row that does not fit the dataset.
fn carry(output: &Path) {
    let input = PathBuf::from(variable("BARECOUNT_INPUT_DIR")).join("word/word.txt");
    let word = fs::read_to_string(input).expect("the word can be read");
    let word = word.trim();
    println!("the word is {word}");
    eprintln!("the word is {word}");
    let checkpoint = PathBuf::from(variable("BARECOUNT_CHECKPOINT_DIR"));
    fs::write(checkpoint.join("word"), word).expect("the checkpoint can be written");
    if let Ok(cache) = env::var("BARECOUNT_CACHE_DIR") {
        fs::write(Path::new(&cache).join("word"), word).expect("the cache can be written");
    }
    fs::write(env::temp_dir().join("word"), word).expect("the scratch folder can be written");
    let dataset = output.join(variable("DATASET"));
    fs::create_dir_all(&dataset).expect("the output folder can be written");
    let rows = format!("id,word\n1,{word}\nodd-{word},{word}\n");
    fs::write(dataset.join("part.csv"), rows).expect("rows can be written");
}

/// Copies the folder `rows` beside this program to the outputs.
fn copy_rows(output: &Path) {
    let own = env::current_exe().expect("a program knows where it is");
    let rows = own.parent().unwrap_or(Path::new("/")).join("rows");
    copy(&rows, output);
}

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        fs::create_dir_all(to).expect("the output folder can be written");
        for entry in fs::read_dir(from).expect("rows can be listed") {
            let entry = entry.expect("rows can be listed");
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    } else if from.is_file() {
        fs::copy(from, to).expect("rows can be copied");
    }
}

/// Waits until somebody ends the sleeper.
fn linger() {
    let mut sleeper = Command::new("/proc/self/exe");
    let _ = sleeper.arg0("sleeper").env("BEHAVIOUR", "sleep").status();
}

unsafe extern "C" {
    fn fcntl(descriptor: i32, command: i32, argument: i32) -> i32;
    fn signal(number: i32, handler: usize) -> usize;
}

/// Asks for a lease on every file below, and does not hear of it that somebody waits: whoever opens one
/// has to until the kernel ends the lease.
fn lease_all(folder: &Path) -> Vec<Option<fs::File>> {
    const F_SETLEASE: i32 = 1024;
    const F_WRLCK: i32 = 1;
    const SIGIO: i32 = 29;
    const SIG_IGN: usize = 1;
    // SAFETY: integers; what is ignored runs no code.
    unsafe { signal(SIGIO, SIG_IGN) };
    let mut leases = Vec::new();
    for entry in fs::read_dir(folder).expect("inputs can be listed") {
        let path = entry.expect("it can be listed").path();
        if path.is_dir() {
            leases.extend(lease_all(&path));
            continue;
        }
        let file = fs::File::open(&path).expect("an input can be read");
        // SAFETY: integers; the descriptor is open.
        let leased = unsafe { fcntl(file.as_raw_fd(), F_SETLEASE, F_WRLCK) } == 0;
        leases.push(leased.then_some(file));
    }
    leases
}

fn list(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder can be listed");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("it can be listed").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte)).sum()
}

/// Tells the secret `token` in every way that a careless program would.
fn leak(secrets: &Path, output: &Path) {
    let value = fs::read_to_string(secrets.join("token")).expect("the secret can be read");
    println!("raw <{value}>");
    println!("hex <{}>", hex(value.as_bytes()));
    println!("base64 <{}>", base64(format!("user:{value}").as_bytes()));
    println!("{{\"json\": \"{}\"}}", in_json(&value));
    let mut out = io::stdout().lock();
    let (first, second) = value.split_at(value.len() / 2);
    for part in ["split <", first, second, ">\n"] {
        out.write_all(part.as_bytes()).expect("the log takes everything");
        out.flush().expect("the log takes everything");
        thread::sleep(Duration::from_millis(20));
    }
    let letters = output.join("_dead_letters");
    fs::create_dir_all(&letters).expect("the output folder can be written");
    let letter = format!(
        "{{\"record\": {{\"token\": \"{value}\"}}, \"error\": \"refused {value}\"}}\n"
    );
    fs::write(letters.join("own.jsonl"), letter).expect("dead letters can be written");
    // Nobody takes them, and they are told by name.
    for name in [format!("stray-{value}.txt"), hex(value.as_bytes())] {
        fs::write(output.join(name), "").expect("the output folder can be written");
    }
    // A lookup is refused, and recorded by name.
    let _ = look_up(&format!("{value}.example"));
}

fn in_json(text: &str) -> String {
    text.chars().map(|c| format!("\\u{:04x}", c as u32)).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for part in bytes.chunks(3) {
        let mut number = 0;
        for index in 0..3 {
            number = number << 8 | u32::from(part.get(index).copied().unwrap_or(0));
        }
        for index in 0..4 {
            let digit = DIGITS[(number >> (18 - 6 * index) & 63) as usize];
            text.push(if index <= part.len() { digit as char } else { '=' });
        }
    }
    text
}

fn hang() -> ! {
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}

/// Starts copies of itself, each of which does the same, until no more can be started.
fn fork_bomb() -> ! {
    let mut started = 0;
    while let Ok(_child) = Command::new("/proc/self/exe").spawn() {
        started += 1;
        if started > 100_000 {
            println!("nothing stopped it");
            process::exit(9);
        }
    }
    println!("stopped after {started}");
    hang()
}

fn eat_memory() -> ! {
    let mut eaten: Vec<Vec<u8>> = Vec::new();
    loop {
        eaten.push(vec![eaten.len() as u8 | 1; 1 << 20]);
    }
}

/// Writes files of so many bytes until it is ended.
fn fill(folder: &Path, bytes: usize) -> ! {
    for number in 0.. {
        fs::write(folder.join(format!("filling-{number}")), vec![7; bytes]).expect("a file is written");
    }
    unreachable!("nobody counts that far")
}

/// Makes files until there can be no more, and goes on trying until it is ended.
fn take_inodes(folder: &Path) -> ! {
    let mut made = 0_u64;
    loop {
        if fs::write(folder.join(format!("taking-{made}")), "").is_ok() {
            made += 1;
        }
    }
}

/// Writes one file until it is ended.
fn write_large(output: &Path) -> ! {
    let mut file = fs::File::create(output.join("large")).expect("a file can be made");
    loop {
        file.write_all(&[7; 1 << 20]).expect("a file can be written");
    }
}

/// Makes files of nothing but a hole: as many and as large as `HOLES` says, in MiB; after a first line,
/// if there is one.
fn write_holes(output: &Path) {
    let holes = variable("HOLES");
    let (files, mib) = holes.split_once(" of ").expect("so many of so many MiB");
    let (files, mib): (u32, u64) = (files.parse().expect("a number"), mib.parse().expect("a number"));
    let folder = output.join(variable("DATASET"));
    fs::create_dir_all(&folder).expect("the output folder can be written");
    let (ending, first) = match env::var("FIRST_LINE") {
        Ok(first) => ("csv", format!("{first}\n")),
        Err(_) => ("bin", String::new()),
    };
    for number in 0..files {
        let path = folder.join(format!("hole-{number:03}.{ending}"));
        fs::write(&path, &first).expect("a file can be made");
        let file = fs::OpenOptions::new().write(true).open(&path).expect("it can be opened");
        file.set_len(mib << 20).expect("it can be made longer");
    }
}

fn print_much(bytes: usize) {
    let line = [b'x'; 1 << 16];
    let mut out = io::stdout().lock();
    for _ in 0..bytes / line.len() {
        out.write_all(&line).expect("the log takes everything");
    }
}

/// The next event: its identifier and its text.
fn next(api: &str) -> (String, String) {
    let (headers, body) = request(api, "GET", "/2018-06-01/runtime/invocation/next", "", "");
    let id = headers
        .iter()
        .find_map(|line| line.strip_prefix("lambda-runtime-aws-request-id: "))
        .expect("an event has an identifier")
        .to_owned();
    (id, body)
}

fn post(api: &str, path: &str, header: &str, body: &str) {
    request(api, "POST", path, header, body);
}

fn request(api: &str, method: &str, path: &str, header: &str, body: &str) -> (Vec<String>, String) {
    let mut stream = TcpStream::connect(api).expect("the runtime interface is reachable");
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {api}\r\nConnection: close\r\n{header}\
         Content-Length: {length}\r\n\r\n{body}"
    )
    .expect("a request can be sent");
    let mut reader = BufReader::new(stream);
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("an answer has headers");
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        headers.push(format!("{}: {}", name.to_lowercase(), value.trim()));
    }
    let length = headers
        .iter()
        .find_map(|line| line.strip_prefix("content-length: "))
        .and_then(|length| length.parse::<usize>().ok());
    let mut body = Vec::new();
    match length {
        Some(length) => {
            body.resize(length, 0);
            reader.read_exact(&mut body).expect("an answer is as long as it says");
        }
        None => drop(reader.read_to_end(&mut body)),
    }
    (headers, String::from_utf8_lossy(&body).into_owned())
}

/// The text of a field in JSON of the platform's own, whose values need no unescaping.
fn field(json: &str, name: &str) -> String {
    let key = format!("\"{name}\":");
    let rest = json.split_once(&key).map_or("", |(_, rest)| rest).trim_start();
    rest.trim_start_matches('"').split('"').next().unwrap_or_default().to_owned()
}

/// Leaves folders that their owner may not change any more, as archives and package managers do, and
/// one that he may not even enter.
fn leave_closed(output: &Path) {
    let close = |folder: &Path, mode| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(folder, mode).expect("its owner may do that");
    };
    let inner = output.join("_closed/most");
    fs::create_dir_all(&inner).expect("a folder in the output");
    fs::write(inner.join("row"), "").expect("a file in the output");
    close(&inner, 0);
    for folder in [inner.parent(), Some(&output.join("raw.rows")), Some(output)] {
        close(folder.expect("it has one"), 0o555);
    }
}

/// Leaves more nested folders than a process may have files open.
fn leave_deep(output: &Path) {
    let before = env::current_dir().expect("there is one");
    env::set_current_dir(output).expect("it can be entered");
    for _ in 0..3_000 {
        fs::create_dir("_deep").expect("a folder in the output");
        env::set_current_dir("_deep").expect("it can be entered");
    }
    env::set_current_dir(before).expect("it can be entered");
}
