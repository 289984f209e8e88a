-- Ways in beside the password: devices that are approved on a page, browsers, second factors, app passwords, accounts at other providers.
-- Whatever lets somebody in is stored as SHA-256 only; the secret of a second factor is encrypted under a key that is not in the database.

-- A device that asks to be let in (RFC 8628). 'waiting' until a person decides; 'used' once the device has fetched its tokens.
CREATE TABLE device_requests (
    device_code_hash  BLOB PRIMARY KEY NOT NULL CHECK (length(device_code_hash) = 32),
    user_code_hash    BLOB NOT NULL UNIQUE CHECK (length(user_code_hash) = 32),
    device_name       TEXT NOT NULL,
    public_key        BLOB NOT NULL CHECK (length(public_key) = 32),
    -- What the device says that it runs on, for the person who decides.
    system            TEXT NOT NULL,
    remote_ip         TEXT NOT NULL,
    -- The network by which requests are counted.
    remote_net        TEXT NOT NULL,
    state             TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'approved', 'denied', 'used')),
    user_id           BLOB REFERENCES users (user_id) ON DELETE CASCADE,
    -- Asking again before this time is too soon.
    next_poll_at      INTEGER NOT NULL,
    interval_ms       INTEGER NOT NULL CHECK (interval_ms > 0),
    created_at        INTEGER NOT NULL,
    expires_at        INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX device_requests_net ON device_requests (remote_net, created_at);
CREATE INDEX device_requests_expiry ON device_requests (expires_at);
CREATE INDEX device_requests_user ON device_requests (user_id);

-- A browser's cookie; the login itself is its session.
CREATE TABLE web_sessions (
    cookie_hash  BLOB PRIMARY KEY NOT NULL CHECK (length(cookie_hash) = 32),
    session_id   BLOB NOT NULL UNIQUE REFERENCES sessions (session_id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

-- The password was right, the second factor is still to come.
CREATE TABLE mfa_challenges (
    token_hash  BLOB PRIMARY KEY NOT NULL CHECK (length(token_hash) = 32),
    user_id     BLOB NOT NULL REFERENCES users (user_id) ON DELETE CASCADE,
    attempts    INTEGER NOT NULL DEFAULT 0,
    expires_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX mfa_challenges_user ON mfa_challenges (user_id);
CREATE INDEX mfa_challenges_expiry ON mfa_challenges (expires_at);

CREATE TABLE totp (
    user_id       BLOB PRIMARY KEY NOT NULL REFERENCES users (user_id) ON DELETE CASCADE,
    sealed        BLOB NOT NULL,
    created_at    INTEGER NOT NULL,
    -- NULL: shown to the user, but no code of it was given yet; it asks for nothing.
    confirmed_at  INTEGER,
    -- The time step of the newest code that was used: no code of it or before is taken again.
    last_step     INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE TABLE recovery_codes (
    user_id    BLOB NOT NULL REFERENCES totp (user_id) ON DELETE CASCADE,
    code_hash  BLOB NOT NULL CHECK (length(code_hash) = 32),
    used_at    INTEGER,
    PRIMARY KEY (user_id, code_hash)
) STRICT, WITHOUT ROWID;

-- App passwords. A revoked or ended one stays for a while, so that its use can be told from a guess.
CREATE TABLE api_tokens (
    token_id      BLOB PRIMARY KEY NOT NULL CHECK (length(token_id) = 16),
    token_hash    BLOB NOT NULL UNIQUE CHECK (length(token_hash) = 32),
    user_id       BLOB NOT NULL REFERENCES users (user_id) ON DELETE CASCADE,
    name          TEXT NOT NULL,
    -- The sum of 1 (files:read), 2 (files:write) and 4 (dav).
    scopes        INTEGER NOT NULL CHECK (scopes BETWEEN 1 AND 7),
    -- The only folder that it opens; NULL for all. The directory is a node, so that the folder may be renamed. A token of a namespace that is gone
    -- opens nothing, so there is no reference to watch over.
    namespace_id  BLOB,
    directory_id  BLOB,
    -- Where that folder was when the token was made, for people.
    path          TEXT,
    created_at    INTEGER NOT NULL,
    expires_at    INTEGER,
    last_used_at  INTEGER,
    last_used_ip  TEXT,
    revoked_at    INTEGER,
    CHECK ((namespace_id IS NULL) = (directory_id IS NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX api_tokens_user ON api_tokens (user_id, created_at);

-- Accounts at other providers: (issuer, subject) is who somebody is there, for ever; the address is for people only.
CREATE TABLE identities (
    issuer        TEXT NOT NULL,
    subject       TEXT NOT NULL,
    user_id       BLOB NOT NULL REFERENCES users (user_id) ON DELETE CASCADE,
    email         TEXT NOT NULL,
    created_at    INTEGER NOT NULL,
    last_used_at  INTEGER NOT NULL,
    PRIMARY KEY (issuer, subject)
) STRICT, WITHOUT ROWID;
CREATE INDEX identities_user ON identities (user_id);
