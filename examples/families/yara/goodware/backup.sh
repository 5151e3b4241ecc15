#!/bin/sh
# Keeps a copy of the wharf timetable; installed in /etc/cron.daily by hand.
curl -so /var/backups/wharf.csv http://harbor.example/timetable
sh /usr/local/bin/rotate-backups
