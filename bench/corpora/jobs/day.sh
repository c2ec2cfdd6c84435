#!/bin/bash
# What the corpus guest does before its RAM is taken: an ordinary day, with the programs that a server runs.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
exec </dev/null >/dev/console 2>&1
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmp /tmp
echo "DAY begins"
dpkg-query -W -f '${Package} ${Version} ${Installed-Size}\n' | sort -k3 -n >/tmp/packages
find /usr /etc -xdev -type f -printf '%s %p\n' | sort -n >/tmp/files
# Backups, checksums and searches read what a server has; the page cache keeps some of it.
tar -C / -cf - usr/share/doc usr/share/perl5 etc 2>/dev/null | gzip -1 >/root/backup.tgz
find /usr/bin /usr/lib/x86_64-linux-gnu -type f -size -3000k | head -400 | xargs -r md5sum >/root/sums
grep -rl "copyright" /usr/share/doc 2>/dev/null | head -500 >/tmp/found
perl -ne '$n{lc $_}++ for /\w+/g; END { print scalar(keys %n), "\n" }' /usr/share/doc/*/copyright >/tmp/words
# Two long-lived processes with a memory of their own, and a shell that waits for them.
python3 /root/day.py serve &
python3 /root/day.py report || { echo "DAY FAILED: report"; sleep 60; }
for _ in 1 2 3; do ps aux >/tmp/ps; free >/tmp/free; done
until [ -e /tmp/serving ]; do sleep 0.2; done
echo "DAY OVER"
while :; do sleep 5; done
