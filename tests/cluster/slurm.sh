#!/usr/bin/env bash
# A Slurm of its own on this machine, in a folder: `slurm.sh start DIR [NODES [GPUS]]`, `kill-node DIR N`, `stop DIR`.
# GPUS is 0 or 1: Slurm gives out /dev/null as the GPU of each node. A node has one CPU, and a second one with the GPU.
# Each node is a slurmd in a namespace of its own, with its own host name and processes, so that it can vanish at once.
# The partition `high` takes nodes from `low`, whose jobs are queued again. Needs root, slurmctld, slurmd, munge.
set -euo pipefail
action=$1 dir=$2
export SLURM_CONF=$dir/slurm.conf
case $action in
start)
  nodes=${3:-2} gpus=${4:-0} port=$((20000 + $$ % 10000)) munge=$dir/munge
  mkdir -p "$munge" "$dir/state"
  chmod 755 "$dir" "$munge"
  head -c 1024 /dev/urandom > "$munge/key"
  chmod 400 "$munge/key"
  chown -R munge "$munge"
  setpriv --reuid=munge --regid=munge --clear-groups munged --key-file="$munge/key" --socket="$munge/socket" \
    --pid-file="$dir/munge/pid" --log-file="$munge/log" --seed-file="$munge/seed"
  if [ "$gpus" -gt 0 ]; then echo "Name=gpu File=/dev/null" > "$dir/gres.conf"; fi
  cat > "$SLURM_CONF" <<END
GresTypes=gpu
ClusterName=test
SlurmctldHost=$(hostname)(127.0.0.1)
SlurmctldPort=$port
SlurmUser=root
SlurmdUser=root
AuthInfo=socket=$munge/socket,cred_expire=5
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool.%n
SlurmctldPidFile=$dir/ctld.pid
SlurmdPidFile=$dir/%n.slurmd.pid
SlurmctldLogFile=$dir/ctld.log
SlurmdLogFile=$dir/%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout=10
KillWait=5
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
$(for n in $(seq "$nodes"); do echo "NodeName=n$n NodeAddr=127.0.0.1 Port=$((port + n)) CPUs=$((1 + gpus)) RealMemory=1000 Gres=gpu:$gpus"; done)
PartitionName=low Nodes=ALL Default=YES PriorityTier=1
PartitionName=high Nodes=ALL PriorityTier=2 PreemptMode=OFF
END
  slurmctld
  for n in $(seq "$nodes"); do
    mkdir "$dir/spool.n$n"
    setsid unshare --pid --uts --mount-proc --fork --kill-child \
      sh -c "hostname n$n; slurmd -D -N n$n; exit" > "$dir/n$n.out" 2>&1 < /dev/null &
    echo $! > "$dir/n$n.pid"
  done
  for _ in $(seq 30); do
    [ "$(sinfo --noheader --Node --partition=low --format=%t | grep -cx idle)" = "$nodes" ] && exit
    sleep 1
  done
  echo "the nodes are not idle after 30 s; see $dir/*.log" >&2
  exit 1
  ;;
kill-node) kill -KILL "$(cat "$dir/n$3.pid")" ;;
stop)
  for file in "$dir"/n*.pid "$dir/ctld.pid" "$dir/munge/pid"; do
    if [ -e "$file" ]; then kill -KILL "$(cat "$file")" 2> /dev/null || true; fi
  done
  ;;
esac
