CREATE TABLE IF NOT EXISTS tenants (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    -- Number of the tenant's last turn: the queue goes round by it.
    served INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE IF NOT EXISTS models (
    program TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    first_served INTEGER NOT NULL
) STRICT;

-- A client's public and evaluation keys for one Program. The blob has the same id.
CREATE TABLE IF NOT EXISTS keys (
    id TEXT PRIMARY KEY,
    tenant INTEGER NOT NULL REFERENCES tenants (id),
    program TEXT NOT NULL REFERENCES models (program),
    -- BLAKE3 of the blob: the same keys again are the same row.
    digest TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    created INTEGER NOT NULL,
    -- Sets whose results were or will be handed out. It outlives the blob, so that nobody resets it.
    sets INTEGER NOT NULL DEFAULT 0,
    deleted INTEGER NOT NULL DEFAULT 0,
    UNIQUE (tenant, program, digest)
) STRICT;

-- Requests on their way. The blob has the same id, and is valid up to `received`.
CREATE TABLE IF NOT EXISTS uploads (
    id TEXT PRIMARY KEY,
    tenant INTEGER NOT NULL REFERENCES tenants (id),
    key TEXT NOT NULL REFERENCES keys (id),
    length INTEGER NOT NULL,
    received INTEGER NOT NULL DEFAULT 0,
    expires INTEGER NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS jobs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    tenant INTEGER NOT NULL REFERENCES tenants (id),
    key TEXT NOT NULL REFERENCES keys (id),
    -- The upload that became the job. It makes one job, however often it is asked for.
    upload TEXT NOT NULL UNIQUE,
    -- Whether the upload's blob is still there.
    input INTEGER NOT NULL DEFAULT 1,
    images INTEGER NOT NULL,
    sets INTEGER NOT NULL,
    input_bytes INTEGER NOT NULL,
    result_bytes INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed', 'cancelled')),
    -- Asked to end while it runs.
    cancelling INTEGER NOT NULL DEFAULT 0,
    -- What masks and floods are expanded from; gone as soon as no attempt can follow.
    secret BLOB,
    attempts INTEGER NOT NULL DEFAULT 0,
    created INTEGER NOT NULL,
    started INTEGER,
    finished INTEGER,
    expires INTEGER,
    error TEXT
) STRICT;

CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state, seq);
CREATE INDEX IF NOT EXISTS jobs_by_tenant ON jobs (tenant, seq);
CREATE INDEX IF NOT EXISTS uploads_by_tenant ON uploads (tenant);
