# The first process of a node: sets its namespaces up, says so, and then only reaps orphans.
# Arguments: the node's folder, its host name, then the cgroups to move into.
dir=$1 host=$2
shift 2
read -r stat </proc/self/stat # as the machine sees us: number first, field 22 is the start in clock ticks
me=${stat%% *}
start=$(echo "${stat##*) }" | cut -d' ' -f20)
echo "$me $start" >"$dir.pid.new" && mv "$dir.pid.new" "$dir.pid"
for cgroup in "$@"; do echo "$me" >"$cgroup/cgroup.procs"; done
set -e
hostname "$host"
resolv=$(readlink -f /etc/resolv.conf)
mount --rbind /sys/fs/cgroup "$dir/cgroup"
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount --rbind "$dir/cgroup" /sys/fs/cgroup
umount -l "$dir/cgroup"
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/docker /run/lock
mkdir -p /etc/docker
mount --bind "$dir/etc" /etc/docker
mount -t tmpfs -o mode=700 tmpfs "$dir/data" # Docker's own data: fast, and gone with the node
mkdir -p "$(dirname "$resolv")"
[ -e "$resolv" ] || : >"$resolv"
mount --bind "$dir/resolv.conf" "$resolv"
ip link set lo up
set +e
: >"$dir/ready"
trap : TERM INT HUP
while :; do sleep 3600 & wait $!; done
