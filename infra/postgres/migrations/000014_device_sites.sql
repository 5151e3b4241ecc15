-- The site of each device that was heard: a site decides the partition, and one device must not be counted in several.
create table device_sites (
  device_id text primary key,
  site text
);
-- What the devices themselves have said; of those that were only imported (-1) the site is taken when they are heard.
insert into device_sites (device_id, site) select device_id, site from devices where described_at >= 0;
