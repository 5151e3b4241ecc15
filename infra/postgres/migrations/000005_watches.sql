-- When a workflow last looked at the open stage of a release: without it nothing renews the release's lease.
create table release_watches (
  release_id text primary key,
  seen_at    bigint not null -- ms since 1970, the watching worker's clock
);
