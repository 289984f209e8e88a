-- The audit log says on whose behalf something was done (user_id is to whom), and by which way it came: http, cli or the relay itself.
ALTER TABLE audit ADD COLUMN actor_id BYTEA;
ALTER TABLE audit ADD COLUMN via TEXT NOT NULL DEFAULT 'http';
CREATE INDEX audit_actor ON audit (actor_id, audit_id);

-- Append only: nothing is changed, and nothing younger than the shortest retention that can be set is deleted.
CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log is append only';
END
$$;
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit FOR EACH ROW EXECUTE FUNCTION audit_is_append_only();
CREATE TRIGGER audit_is_kept BEFORE DELETE ON audit FOR EACH ROW
    WHEN (old.at > (extract(epoch FROM clock_timestamp()) * 1000)::bigint - 7 * 86400000::bigint)
    EXECUTE FUNCTION audit_is_append_only();
