-- Where a symbolic link points, or pointed before it was deleted, so that it can be brought back from the trash.
ALTER TABLE files ADD COLUMN link_target BYTEA;
