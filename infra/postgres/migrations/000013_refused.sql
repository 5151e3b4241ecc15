-- Why the judge takes no window of a release any more; its row may be there for that alone.
alter table judge_status add column refused text;
