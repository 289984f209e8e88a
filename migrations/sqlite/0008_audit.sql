-- The audit log says on whose behalf something was done (user_id is to whom), and by which way it came: http, cli or the relay itself.
ALTER TABLE audit ADD COLUMN actor_id BLOB;
ALTER TABLE audit ADD COLUMN via TEXT NOT NULL DEFAULT 'http';

-- Append only: nothing is changed, and nothing younger than the shortest retention that can be set is deleted. By functions that every SQLite has: an
-- operator's tool may be older than the relay's.
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append only');
END;
CREATE TRIGGER audit_is_kept BEFORE DELETE ON audit WHEN old.at > (CAST(strftime('%s', 'now') AS INTEGER) - 7 * 86400) * 1000
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append only');
END;
