#!/bin/bash
# Runs as root under a systemd of its own, in a directory that has procpool.deb, the worker and countchars. `.ci/run systemd` brings it there.
set -Eeuo pipefail
trap 'line=$LINENO' ERR
trap 'status=$?; ((status == 0)) || { echo "FAILED in line ${line:-?}"; systemctl status --no-pager -n 0 procpoold.service procpoold.socket; journalctl --no-pager -n 40 -u procpoold -o cat; }' EXIT
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
sock=/run/procpool/api.sock

step() { printf '\n== %s\n' "$*"; }
fail() { echo "$*"; exit 1; }
# as USER COMMAND...: with the groups of USER and an empty environment. "nobody at all" is a uid that has no name.
as() {
	local user=$1
	shift
	if [[ $user == unknown ]]; then
		setpriv --reuid 4242 --regid 4242 --clear-groups env -i HOME=/ PATH="$PATH" "$@"
	else
		setpriv --reuid "$user" --regid "$user" --init-groups env -i HOME="/home/$user" PATH="$PATH" "$@"
	fi
}
# soon COMMAND...: it succeeds within a minute.
soon() {
	local deadline=$((SECONDS + 60))
	until "$@" >/dev/null 2>&1; do
		((SECONDS < deadline)) || fail "still not after a minute: $*"
		read -rt 0.1 <> <(:) || true
	done
}
main_pid() { systemctl show -P MainPID procpoold.service; }
renewed() { [[ $(main_pid) != "$1" && $(main_pid) != 0 ]]; }
workers() { pgrep -u procpool -f '^/usr/local/bin/(worker|countchars)'; }
gone() { ! kill -0 "$@"; }
count() { as alice procpool map --pool counting --func count_chars ::: /etc/os-release; }
counts() { [[ $(count) == "$(wc -m </etc/os-release)" ]] || fail 'the result is wrong'; }
# refused USER WORDS COMMAND...: procpool fails, and says WORDS.
refused() {
	local user=$1 words=$2 said status=0
	shift 2
	said=$(as "$user" "$@" 2>&1) || status=$?
	echo "$said"
	((status == 255)) && [[ $said == *"$words"* ]] || fail "status $status; wanted 255 and: $words"
}

rm -f /usr/sbin/policy-rc.d # of a container, where packages start nothing
rm -f /var/lib/man-db/auto-update   # all manual pages of the machine, each time

step 'dpkg -i'
dpkg -i /box/procpool.deb
[[ $(systemctl is-active procpoold.socket) == active && $(systemctl is-active procpoold.service) == inactive ]]
[[ $(stat -c '%a %U %G' $sock) == '660 root procpool' ]]
[[ $(stat -c '%a %U %G' /run/procpool) == '755 root root' ]]
useradd -m -G procpool alice
useradd -m bob
install /box/worker /box/countchars /usr/local/bin/
echo 'command = ["/usr/local/bin/countchars"]' >/etc/procpool/conf.d/counting.toml
printf 'command = ["/usr/local/bin/worker"]\nworkers = 2\n' >/etc/procpool/conf.d/notes.toml
as alice man -w procpool-map procpoold >/dev/null
as alice bash -c 'source /usr/share/bash-completion/completions/procpool && complete -p procpool' >/dev/null

step 'the units are right'
for unit in /lib/systemd/system/procpoold.{service,socket}; do
	said=$(systemd-analyze verify "$unit" 2>&1) && [[ -z $said ]] || fail "$said"
done
for unit in /usr/lib/systemd/user/procpoold.{service,socket}; do
	said=$(XDG_RUNTIME_DIR=/run systemd-analyze --user verify "$unit" 2>&1) && [[ -z $said ]] || fail "$said"
done
systemd-analyze security --no-pager --threshold=20 procpoold.service | tail -1

step 'a member of the group is the first client, and the socket starts the service'
counts
[[ $(systemctl is-active procpoold.service) == active ]]
[[ $(ps -o user= -p "$(main_pid)") == procpool ]]
as alice procpool version
as alice procpool doctor --addr $sock >/tmp/doctor
grep '^ok  systemd .*procpoold.service' /tmp/doctor
grep '^ok  escaped children' /tmp/doctor # each worker has a cgroup
soon eval '[[ $(systemctl show -P StatusText procpoold.service) == "2 pools, "* ]]'
systemctl show -P StatusText procpoold.service

step 'others are refused, and told what to do'
refused bob 'usermod -aG' procpool map --pool counting --func count_chars ::: /etc/os-release
refused unknown 'usermod -aG' procpool map --pool counting --func count_chars ::: /etc/os-release
refused alice 'procpool map -- COMMAND' procpool create mine -- /bin/cat
refused alice 'administrators' procpool close counting
[[ $(as alice procpool map -- echo {} ::: here) == here ]] # with workers of her own

step 'a reload'
sed -i 's/workers = 2/workers = 3/' /etc/procpool/conf.d/notes.toml
systemctl reload procpoold
soon eval '[[ $(pgrep -cu procpool -f ^/usr/local/bin/worker) == 3 ]]'
echo 'comand = ["/bin/false"]' >/etc/procpool/conf.d/wrong.toml
if systemctl reload procpoold; then fail 'a wrong configuration was taken'; fi
journalctl --no-pager -u procpoold -o cat | grep 'did you mean command?'
rm /etc/procpool/conf.d/wrong.toml
counts

step 'a drop-in for data in /home'
data=/home/data
install -D -m 644 /etc/os-release $data/os-release
install -d -o procpool /srv/results
mkdir -p /etc/systemd/system/procpoold.service.d
printf '[Service]\nProtectHome=tmpfs\nBindReadOnlyPaths=%s\nReadWritePaths=/srv/results\n' $data >/etc/systemd/system/procpoold.service.d/data.conf
systemctl daemon-reload
systemctl restart procpoold
[[ $(as alice procpool map --pool counting --func count_chars ::: $data/os-release) == "$(wc -m </etc/os-release)" ]] || fail 'data in /home is not there'
rm -r /etc/systemd/system/procpoold.service.d
systemctl daemon-reload
systemctl restart procpoold

step 'a restart under load'
first=$(main_pid)
for call in {1..6}; do
	as alice procpool map -k --pool notes --func note ::: "$call"-{1..40} >/tmp/early-$call &
done
soon eval '[[ $(procpool calls | grep -cw note) == 6 ]]'
systemctl restart --no-block procpoold
soon eval '[[ $(systemctl is-active procpoold.service) == deactivating ]]'
for call in {7..9}; do
	as alice procpool map -k --pool notes --func note ::: "$call"-{1..40} >/tmp/late-$call &
done
[[ $(main_pid) == "$first" ]] || fail 'it had drained before the late calls came'
for job in $(jobs -p); do wait "$job" || fail 'a call has failed'; done
renewed "$first"
for call in {1..9}; do
	diff <(printf '"%s"\n' "$call"-{1..40}) /tmp/*-$call
done
diff <(printf '%s\n' {1..9}-{1..40} | sort) <(sort /var/lib/procpool/notes) # each once
counts

step 'kill -9'
first=$(main_pid) before=$(workers | tr '\n' ' ')
kill -9 "$first"
for pid in $before; do soon gone "$pid"; done
soon renewed "$first"
counts

step 'the watchdog'
mkdir -p /etc/systemd/system/procpoold.service.d
printf '[Service]\nWatchdogSec=5s\n' >/etc/systemd/system/procpoold.service.d/watchdog.conf
systemctl daemon-reload
systemctl restart procpoold
counts
first=$(main_pid)
kill -STOP "$first"
soon renewed "$first"
counts
[[ $(systemctl show -P NRestarts procpoold.service) == 1 ]]
journalctl --no-pager -u procpoold -o cat | grep '^SIGABRT' # and what each goroutine did
rm /etc/systemd/system/procpoold.service.d/watchdog.conf

step 'strict.conf'
cp /usr/share/doc/procpool/examples/strict.conf /etc/systemd/system/procpoold.service.d/
systemctl daemon-reload
systemd-analyze security --no-pager --threshold=10 procpoold.service | tail -1
systemctl restart procpoold
counts
rm -r /etc/systemd/system/procpoold.service.d
systemctl daemon-reload
systemctl restart procpoold
counts

step 'an upgrade'
first=$(main_pid)
dpkg-deb -R /box/procpool.deb /tmp/next
sed -i 's/^Version: .*/&+next/' /tmp/next/DEBIAN/control
dpkg-deb --root-owner-group -b /tmp/next /tmp/next.deb >/dev/null
rm /var/lib/procpool/notes
as alice procpool map -k --pool notes --func note ::: u-{1..30} >/tmp/during &
soon test -s /var/lib/procpool/notes
dpkg -i /tmp/next.deb
wait $! || fail 'the call that ran during the upgrade has failed'
diff <(printf '"%s"\n' u-{1..30}) /tmp/during
renewed "$first"
counts

step 'stop'
systemctl stop procpoold.socket procpoold.service
! pgrep -u procpool -a || fail 'there are processes'
[[ -z $(find /run/procpool -type s) ]] || fail 'there are sockets'
refused alice 'is procpoold running?' procpool pools

step 'a daemon of a user'
loginctl enable-linger bob
runtime=/run/user/$(id -u bob)
soon test -S "$runtime/bus"
mine() { as bob env XDG_RUNTIME_DIR="$runtime" "$@"; }
mine systemctl --user daemon-reload
mine systemctl --user start procpoold.socket
mine procpool create mine -j 1 -- /usr/local/bin/countchars
[[ $(mine procpool map --pool mine --func count_chars ::: /etc/os-release) == "$(wc -m </etc/os-release)" ]]
[[ $(mine systemctl --user is-active procpoold.service) == active ]]
if as alice procpool --addr "$runtime/procpool/api.sock" pools; then fail 'somebody else was let in'; fi
mine systemctl --user stop procpoold.socket
! pgrep -u bob -x procpoold || fail 'there are processes'
[[ -z $(find "$runtime/procpool" -type s) ]] || fail 'there are sockets'

step 'remove'
systemctl start procpoold.socket
counts
dpkg -r procpool
! pgrep -u procpool -a || fail 'there are processes'
[[ -z $(find /run/procpool -type s) ]] || fail 'there are sockets'
[[ -f /etc/procpool/procpoold.toml && -f /etc/procpool/conf.d/counting.toml ]]
dpkg -i /box/procpool.deb
counts

step 'purge'
dpkg -P procpool
! pgrep -u procpool -a || fail 'there are processes'
[[ ! -e /etc/procpool/procpoold.toml && ! -e /var/lib/procpool && ! -e /run/procpool ]]
[[ -f /etc/procpool/conf.d/counting.toml ]] # what is not the package's stays
[[ -z $(find /etc/systemd/system -name 'procpoold*') ]]
echo
echo 'all is well'
