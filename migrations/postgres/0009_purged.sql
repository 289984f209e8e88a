-- When a deleted node was taken out of the trash for good: its versions are gone, its tombstone stays, so that it does not come back.
ALTER TABLE files ADD COLUMN purged_at BIGINT;
