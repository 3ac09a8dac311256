# The hosts of the table, as ways to start a command in them. Sourced by what xtask writes, which
# calls `row NAME USER PIPELINE WAY…` for each.

export LC_ALL=C.UTF-8
groups=/sys/fs/cgroup
user=eve

# row NAME USER PIPELINE [WAY…]: runs the pipeline as the user in a way, and keeps what came of it.
row() {
  local name=$1 who=$2 pipeline=$3 status
  shift 3
  local home=/var/rows/$name kept=/out/$name
  prepare
  echo "VM: $name, up $(cut -d" " -f1 /proc/uptime) s"
  "$@" $home/start $name >$kept/stdout 2>$kept/stderr
  echo $? >$kept/status
  keep
}

# A folder of the user's with the pipelines, and the command that runs one of them.
prepare() {
  mkdir -p $home $kept
  cp -a /job/pipelines $home/
  cat >$home/start <<S
#!/bin/sh
export HOME=$home XDG_CONFIG_HOME=$home/config
cd $home && exec /job/barecount run pipelines/$pipeline.yaml --state $home/state --token \$1
S
  chmod 755 $home/start
  chown -R $who $home
}

# The state folder, which xtask reads evidence and log from, and what is left of control groups.
keep() {
  tar c -C $home --exclude=state/artifacts --exclude=state/cache --exclude=state/runners state config |
    tar x -C $kept
  find $groups -type d -name 'barecount*' >$kept/left
}

directly() { "$@"; }

# A login, with the session that logind makes for it.
login() {
  local whom=$1
  shift
  su - $whom -c "$*"
}

# A service of the system's own; its properties come first, up to --.
service() {
  local properties=()
  while [ "$1" != -- ]; do properties+=(-p "$1"); shift; done
  shift
  systemd-run --quiet --pipe --wait --collect "${properties[@]}" "$@"
}

# A service of two commands, one after the other.
two_commands() {
  local properties=()
  while [ "$1" != -- ]; do properties+=("$1"); shift; done
  shift
  {
    printf '[Service]\nType=oneshot\n'
    printf '%s\n' "${properties[@]}"
    printf 'ExecStart=-%s one\nExecStart=-%s two\n' $1 $1
  } >/run/systemd/system/two.service
  systemctl daemon-reload
  systemctl start two.service
  systemctl show two.service -p Result -p ExecStart
  journalctl -q --no-pager -o cat -u two.service
  [ "$(systemctl show two.service -p Result --value)" = success ]
}

# A scope of the user's own manager.
user_scope() {
  local properties=""
  while [ "$1" != -- ]; do properties="$properties -p $1"; shift; done
  shift
  login $user systemd-run --user --scope --quiet $properties "$@"
}

# A namespace of control groups as a container has it, `rw` or `ro`; `shell` stays beside.
container() {
  local how=$1 beside=$2
  shift 2
  local group=$groups/container-$RANDOM controller
  for controller in $(cat $groups/cgroup.controllers); do
    echo +$controller >$groups/cgroup.subtree_control
  done
  mkdir $group
  cat >/run/container <<'S'
#!/bin/bash
echo $$ >$1/cgroup.procs
how=$2 beside=$3
shift 3
export how beside
exec unshare --cgroup --mount bash -c '
  umount /sys/fs/cgroup
  mount -t cgroup2 -o $how cgroup2 /sys/fs/cgroup
  if [ $beside = shell ]; then "$@"; exit $?; fi
  exec "$@"' container "$@"
S
  bash /run/container $group $how $beside "$@"
  local status=$?
  echo "VM: the container's group is $(cat $group/cgroup.type), gives [$(cat $group/cgroup.subtree_control)]"
  return $status
}

# A setting of the kernel for as long as a command runs.
with_setting() {
  local setting=/proc/sys/$1 value=$2 before status
  shift 2
  before=$(cat $setting)
  echo $value >$setting
  "$@"
  status=$?
  echo $before >$setting
  return $status
}

as_user() { setpriv --reuid $user --regid $user --clear-groups "$@"; }

# A hard limit of the process, as `ulimit` has it.
with_limit() {
  (
    ulimit $1 $2
    shift 2
    "$@"
  )
}

# A home on a file system from which nothing is run.
on_noexec() {
  mount -t tmpfs -o noexec,mode=755 noexec $home
  prepare
  sh "$@"
}

# A kernel that has no nf_tables, and does have overlays.
without_nf_tables() {
  modprobe overlay
  with_setting kernel/modprobe /bin/false "$@"
}
