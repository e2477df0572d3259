#!/bin/bash
# A private SLURM cluster in one directory, for tests. No systemd, no cgroups, loopback only, as root or as a plain user.
#
#   slurmtest.sh up DIR [OPTION]...    bring a cluster up (default: 2 nodes with 2 pretended GPUs each)
#   slurmtest.sh down DIR              end it; DIR and its logs stay
#
#   --acct         also run slurmdbd on a private MariaDB, so that sacct works
#   --nodes N      number of nodes
#   --gpus N       pretended GPUs a node
#   --memory MB    memory that a node claims to have (default 64000)
#   --hide PATH    an existing folder that the nodes see empty, as if it were not on the shared file system (needs root)
#   SLURM_TEST_PORT   first of the 11 + nodes loopback ports (default: a free range below 32768)
#
# `. DIR/env.sh` points a shell at the cluster. It puts shims of the SLURM commands first in PATH, because
# snakemake-executor-plugin-slurm-jobstep and submitit remove SLURM_CONF from the environment of their children.
# Exit status: 0 done, 1 failed, 2 wrong usage, 3 a needed program is missing.
set -euo pipefail
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"      # the daemons; not in the PATH of a plain Debian user

CLIENTS="sbatch srun salloc squeue sinfo scancel scontrol sacct sacctmgr sstat"
SHIM_MARK="# shim of slurmtest.sh"

usage() { sed -n '2,/^# Exit status/s/^# \{0,1\}//p' "$0"; }
say() { echo "slurmtest.sh: $*" >&2; }
die() { local status=$1; shift; say "$@"; exit "$status"; }

# real_program NAME: its path, passing over shims of this or another test cluster
real_program() {
  local path
  while read -r path; do
    grep -qsF "$SHIM_MARK" "$path" || { echo "$path"; return 0; }
  done < <(type -aP "$1")
  return 1
}

require_programs() {
  local entry missing="" packages=""
  local needed="munged:munge slurmctld:slurmctld slurmd:slurmd"
  for entry in $CLIENTS; do needed="$needed $entry:slurm-client"; done
  if [ "$ACCT" = 1 ]; then
    needed="$needed slurmdbd:slurmdbd mariadbd:mariadb-server mariadb-install-db:mariadb-server mariadb-admin:mariadb-client"
  fi
  for entry in $needed; do
    real_program "${entry%%:*}" >/dev/null && continue
    missing="$missing ${entry%%:*}"
    case " $packages " in *" ${entry##*:} "*) ;; *) packages="$packages ${entry##*:}" ;; esac
  done
  [ -z "$missing" ] || die 3 "missing:$missing
  On Debian 12:  apt-get install -y --no-install-recommends slurm-wlm$packages"
}

# is_ours PID NAME: PID runs NAME and was started for this directory (guards against a reused process id)
is_ours() {
  [ -n "$1" ] && [ "$(cat "/proc/$1/comm" 2>/dev/null)" = "$2" ] &&
    grep -qsaF "$D/" "/proc/$1/cmdline" "/proc/$1/environ"
}

# living NAME PIDFILE...: process ids of our own NAMEs that still run
living() {
  local name=$1 file pid; shift
  for file in "$@"; do
    { pid=$(tr -dc 0-9 < "$file"); } 2>/dev/null || continue
    if is_ours "$pid" "$name"; then echo "$pid"; fi
  done
}

all_living() {
  living slurmd "$D"/run/slurmd-*.pid
  living slurmctld "$D/run/slurmctld.pid"
  living slurmdbd "$D/run/slurmdbd.pid"
  living mariadbd "$D/mysql/my.pid"
  living munged "$D/munge/munged.pid"
}

# stop SECONDS NAME PIDFILE...: SIGTERM to all at once, SIGKILL to those that are left after SECONDS
stop() {
  local seconds=$1 name=$2 pids i; shift 2
  pids=$(living "$name" "$@")
  [ -n "$pids" ] || return 0
  kill $pids 2>/dev/null || true
  for ((i = 0; i < seconds * 20; i++)); do
    pids=$(living "$name" "$@")
    [ -n "$pids" ] || return 0
    sleep .05
  done
  say "$name did not end within $seconds s, killing it"
  kill -KILL $pids 2>/dev/null || true
}

# wait_for SECONDS WHAT COMMAND...
wait_for() {
  local seconds=$1 what=$2 end; shift 2
  end=$((SECONDS + seconds))
  while [ $SECONDS -le $end ]; do
    if "$@" >/dev/null 2>&1; then return 0; fi
    sleep .05
  done
  say "$what not ready after $seconds s"
  return 1
}

# daemon NAME COMMAND...: start a daemon that detaches itself, holding none of the caller's pipes
daemon() {
  local out="$D/log/$1.out"; shift
  "$@" </dev/null >"$out" 2>&1 || { say "failed: $*"; cat "$out" >&2; return 1; }
}

free_ports() {                                    # free_ports FIRST COUNT
  local port
  for ((port = $1; port < $1 + $2; port++)); do
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then return 1; fi
  done
}

choose_ports() {
  local count=$((11 + NODES)) try
  if [ -n "${SLURM_TEST_PORT:-}" ]; then
    PORT=$SLURM_TEST_PORT
    free_ports "$PORT" $count || die 1 "ports $PORT to $((PORT + count - 1)) are not all free"
    return
  fi
  for ((try = 0; try < 50; try++)); do            # below 32768, where the kernel takes ephemeral ports from
    PORT=$((16000 + RANDOM % (16000 - count)))
    if free_ports "$PORT" $count; then return; fi
  done
  die 1 "no free range of $count ports found"
}

# Device files of the pretended GPUs. Only character devices make slurmd set CUDA_VISIBLE_DEVICES.
gpu_files() {
  local g harmless=(/dev/null /dev/zero /dev/full /dev/random /dev/urandom) made=1
  for ((g = 0; g < GPUS; g++)); do
    [ -c "$D/dev/gpu$g" ] || mknod "$D/dev/gpu$g" c 1 3 2>/dev/null || made=0
  done
  if [ $made = 1 ]; then
    GPU_FILES="$D/dev/gpu[0-$((GPUS - 1))]"
    [ "$GPUS" -gt 1 ] || GPU_FILES="$D/dev/gpu0"
  else                                            # mknod is for root
    [ "$GPUS" -le ${#harmless[@]} ] || die 2 "without the right to mknod at most ${#harmless[@]} GPUs a node"
    GPU_FILES=$(IFS=,; echo "${harmless[*]:0:GPUS}")
  fi
}

write_configuration() {
  local i gres="" names="n1"
  [ "$NODES" = 1 ] || names="n[1-$NODES]"
  [ "$GPUS" = 0 ] || gres="Gres=gpu:fake:$GPUS"
  cat > "$D/slurm.conf" <<E
ClusterName=$CLUSTER
SlurmctldHost=$HOST(127.0.0.1)
SlurmctldPort=$PORT
SlurmUser=$USER_NAME
SlurmdUser=$USER_NAME
AuthType=auth/munge
CredType=cred/munge
# cred_expire is also the delay before a requeued job starts again (default 120 s)
AuthInfo=socket=$D/msock/munge.sock,cred_expire=5
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation=$D/state
SlurmdSpoolDir=$D/spool/%n
SlurmctldPidFile=$D/run/slurmctld.pid
SlurmdPidFile=$D/run/slurmd-%n.pid
SlurmctldLogFile=$D/log/slurmctld.log
SlurmdLogFile=$D/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
# enforce --mem by polling, since there is no cgroup
JobAcctGatherParams=OverMemoryKill
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,sched_min_interval=1000
# a node may claim more CPUs than the machine has
SlurmdParameters=config_overrides
ReturnToService=2
MinJobAge=300
KillWait=5
OverTimeLimit=0
MaxArraySize=10001
MaxJobCount=20000
MpiDefault=none
MailProg=/bin/true
SlurmctldTimeout=60
SlurmdTimeout=60
PropagateResourceLimits=NONE
E
  if [ "$ACCT" = 1 ]; then
    cat >> "$D/slurm.conf" <<E
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$((PORT + 2))
# the munge socket; without it sacct and sacctmgr look for the system's one
AccountingStoragePass=$D/msock/munge.sock
AccountingStoreFlags=job_comment
E
    [ "$GPUS" = 0 ] || echo "AccountingStorageTRES=gres/gpu" >> "$D/slurm.conf"
  else
    echo "AccountingStorageType=accounting_storage/none" >> "$D/slurm.conf"
  fi
  [ "$GPUS" = 0 ] || echo "GresTypes=gpu" >> "$D/slurm.conf"
  : > "$D/gres.conf"
  for ((i = 1; i <= NODES; i++)); do
    echo "NodeName=n$i NodeHostname=$HOST NodeAddr=127.0.0.1 Port=$((PORT + 10 + i)) CPUs=4 RealMemory=$MEMORY $gres State=UNKNOWN"
    [ "$GPUS" = 0 ] || echo "NodeName=n$i Name=gpu Type=fake File=$GPU_FILES" >> "$D/gres.conf"
  done >> "$D/slurm.conf"
  cat >> "$D/slurm.conf" <<E
PartitionName=cpu Nodes=$names Default=YES MaxTime=INFINITE State=UP DefMemPerCPU=200
PartitionName=gpu Nodes=$names MaxTime=INFINITE State=UP DefMemPerCPU=200
PartitionName=short Nodes=$names MaxTime=5 State=UP DefMemPerCPU=200
E
  printf '%s\n' CgroupAutomount=no ConstrainCores=no ConstrainDevices=no ConstrainRAMSpace=no > "$D/cgroup.conf"
}

write_shims() {
  local name
  mkdir -p "$D/bin"
  for name in $CLIENTS; do
    printf '#!/bin/sh\n%s\nSLURM_CONF="%s" exec "%s" "$@"\n' \
      "$SHIM_MARK" "$D/slurm.conf" "$(real_program "$name")" > "$D/bin/$name"
    chmod 755 "$D/bin/$name"
  done
  printf 'export SLURM_CONF="%s"\nexport PATH="%s:$PATH"\n' "$D/slurm.conf" "$D/bin" > "$D/env.sh"
}

start_accounting() {
  local M="$D/mysql"
  if [ ! -d "$M/data/mysql" ]; then
    mkdir -p "$M/data"
    mariadb-install-db --no-defaults --user="$USER_NAME" --datadir="$M/data" \
      --auth-root-authentication-method=normal --skip-test-db >"$D/log/mariadb-install.out" 2>&1 ||
      { say "mariadb-install-db failed"; return 1; }
  fi
  # setsid: a signal to the caller's process group must not reach the database
  setsid mariadbd --no-defaults --user="$USER_NAME" --datadir="$M/data" --socket="$M/my.sock" --pid-file="$M/my.pid" \
    --skip-networking --innodb-buffer-pool-size=64M --innodb-lock-wait-timeout=900 \
    --innodb-flush-log-at-trx-commit=0 --log-error="$D/log/mariadbd.log" </dev/null >/dev/null 2>&1 &
  wait_for 30 "MariaDB" mariadb-admin --no-defaults -uroot -S "$M/my.sock" ping || return 1
  cat > "$D/slurmdbd.conf" <<E
AuthType=auth/munge
AuthInfo=socket=$D/msock/munge.sock
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=$((PORT + 2))
SlurmUser=$USER_NAME
LogFile=$D/log/slurmdbd.log
PidFile=$D/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct
CommunicationParameters=NoInAddrAny
E
  chmod 600 "$D/slurmdbd.conf"
  # StorageHost takes no socket path; the client library reads the socket from MYSQL_UNIX_PORT
  daemon slurmdbd env MYSQL_UNIX_PORT="$M/my.sock" slurmdbd || return 1
  wait_for 30 "slurmdbd" sacctmgr -n show cluster || return 1
  { sacctmgr -i add cluster "$CLUSTER" || true               # "already exists" on a second bring-up
    sacctmgr -i add account test Description=test Organization=test || true
    sacctmgr -i add user "$USER_NAME" Account=test || true; } >"$D/log/sacctmgr.out" 2>&1
}

# Variables of an outer job must not reach the daemons, whose environment jobs can inherit.
forget_outer_job() {
  local name
  for name in ${!SLURM_@} ${!SBATCH_@} ${!SALLOC_@}; do
    [ "$name" = SLURM_TEST_PORT ] || unset "$name"
  done
}

all_idle() { [ "$(sinfo -h -N -p cpu -t idle -o %N | sort -u | wc -l)" = "$NODES" ]; }

start() {
  local i HIDDEN=()
  # A mount namespace of its own: what is mounted there, no other process of this machine sees.
  [ -z "$HIDE" ] || HIDDEN=(unshare --mount sh -c 'mount -t tmpfs none "$0" && exec "$@"' "$HIDE")
  # --force: munged else refuses a socket below a directory that is closed to others, such as pytest's tmp_path
  daemon munged munged --force --key-file="$D/munge/key" --socket="$D/msock/munge.sock" --pid-file="$D/munge/munged.pid" \
    --log-file="$D/log/munged.log" --seed-file="$D/munge/seed" || return 1
  if [ "$ACCT" = 1 ]; then start_accounting || return 1; fi
  daemon slurmctld slurmctld -f "$D/slurm.conf" || return 1
  for ((i = 1; i <= NODES; i++)); do
    mkdir -p "$D/spool/n$i"
    daemon "slurmd-n$i" "${HIDDEN[@]}" slurmd -f "$D/slurm.conf" -N "n$i" || return 1
  done
  wait_for 30 "nodes" all_idle
}

up() {
  [ ${#D} -le 64 ] || die 2 "$D is too long: a path of a unix socket below it must fit into 107 characters"
  case $D in *[!A-Za-z0-9._/+-]*) die 2 "$D: only letters, digits and . _ / + - (SLURM's files know no quoting)" ;; esac
  require_programs
  if [ -n "$(all_living)" ]; then die 1 "a cluster runs in $D already; end it first: $0 down $D"; fi
  USER_NAME=$(id -un) || die 1 "user id $(id -u) has no name; SLURM needs one"
  HOST=$(uname -n); HOST=${HOST%%.*}
  CLUSTER=slurmtest
  choose_ports
  mkdir -p "$D"/{state,spool,log,run,munge,msock,dev}
  chmod 755 "$D/msock"; chmod 700 "$D/munge"
  rm -f "$D"/run/*.pid "$D/munge/munged.pid" "$D/mysql/my.pid"
  [ -f "$D/munge/key" ] || (umask 077; head -c 128 /dev/urandom > "$D/munge/key")
  GPU_FILES=""
  [ "$GPUS" = 0 ] || gpu_files
  write_configuration
  write_shims
  forget_outer_job
  export SLURM_CONF="$D/slurm.conf"; PATH="$D/bin:$PATH"
  if ! start; then
    for log in "$D"/log/*; do
      if [ -s "$log" ]; then echo "--- end of $log"; tail -n 15 "$log"; fi
    done >&2
    down || true
    die 1 "the cluster did not come up"
  fi
  sinfo -h -N -p cpu -o '%N %T %c CPUs %m MB %G'
  echo ". $D/env.sh"
}

# Processes of this cluster's jobs, by their environment. They can outlive the job, for example after a node was set down.
leftovers() {
  local file pid callers=" " pid_up=$$
  while [ "${pid_up:-0}" -gt 1 ]; do              # the caller itself may run inside a job of some other cluster
    callers="$callers$pid_up "
    pid_up=$(awk '/^PPid:/ {print $2}' "/proc/$pid_up/status" 2>/dev/null)
  done
  { grep -lsaF "$D/" /proc/[0-9]*/environ || true; } | while read -r file; do
    pid=${file//[!0-9]/}
    case $callers in *" $pid "*) continue ;; esac
    if grep -qsaz '^SLURM_JOB_ID=' "$file"; then
      echo "$pid $(tr '\0' ' ' 2>/dev/null < "/proc/$pid/cmdline" | cut -c 1-200)"
    fi
  done
  for file in /proc/[0-9]*; do                    # slurmstepd overwrites its environment
    if [ "$(cat "$file/comm" 2>/dev/null)" = slurmstepd ]; then
      case $(readlink "$file/cwd") in "$D"/*) echo "${file#/proc/} slurmstepd" ;; esac
    fi
  done
}

jobs_ended() { [ -z "$(timeout 5 squeue -h -t RUNNING,COMPLETING,SUSPENDED -o %A)" ] && [ -z "$(leftovers)" ]; }

down() {
  [ -d "$D" ] || die 1 "no such directory: $D"
  local left
  if [ -f "$D/slurm.conf" ] && [ -n "$(living slurmctld "$D/run/slurmctld.pid")" ]; then
    export SLURM_CONF="$D/slurm.conf"; PATH="$D/bin:$PATH"
    left=$(timeout 5 squeue -h -o %A | sort -u || true)
    [ -z "$left" ] || timeout 10 scancel $left || true
    # slurmd must live on to send SIGKILL after KillWait (5 s); steps of jobs that have just ended still clean up.
    wait_for 10 "end of the jobs" jobs_ended || true
  fi
  stop 5 slurmctld "$D/run/slurmctld.pid" &       # before slurmdbd: it hands its last job records over
  stop 5 slurmd "$D"/run/slurmd-*.pid &
  wait
  stop 5 slurmdbd "$D/run/slurmdbd.pid"
  stop 10 mariadbd "$D/mysql/my.pid"
  stop 3 munged "$D/munge/munged.pid"
  left=$(leftovers)
  if [ -n "$left" ]; then
    say "left behind by jobs and not ended; check and kill them by hand (pid, command):"; echo "$left" >&2
    return 1
  fi
}

[ $# -ge 2 ] || { usage >&2; exit 2; }
ACTION=$1; D=$(realpath -m -- "$2"); shift 2
ACCT=0; NODES=2; GPUS=2; MEMORY=64000; HIDE=""
while [ $# -gt 0 ]; do
  case $1 in
    --acct) ACCT=1 ;;
    --nodes | --gpus | --memory)
      case ${2:-} in '' | *[!0-9]*) die 2 "$1 needs a number" ;; esac
      case $1 in --nodes) NODES=$2 ;; --gpus) GPUS=$2 ;; --memory) MEMORY=$2 ;; esac
      shift ;;
    --hide)
      [ -d "${2:-}" ] || die 2 "--hide needs an existing folder"
      HIDE=$2
      shift ;;
    *) die 2 "unknown option: $1" ;;
  esac
  shift
done
[ "$NODES" -ge 1 ] || die 2 "--nodes must be at least 1"
case $ACTION in
  up) up ;;
  down) down ;;
  *) usage >&2; exit 2 ;;
esac
