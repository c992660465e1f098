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

-- Where keys, requests and results are.
CREATE TABLE IF NOT EXISTS place (
    id INTEGER PRIMARY KEY CHECK (id = 0),
    -- Whose objects they are: a name that lies in the store as well.
    owner TEXT NOT NULL,
    -- `s3://BUCKET/PREFIX`; absent where they are files beside the database.
    store TEXT
) STRICT;

-- Requests on their way. The blob has the same id, and is valid up to `received`. In a store it is an object for each set.
CREATE TABLE IF NOT EXISTS uploads (
    id TEXT PRIMARY KEY,
    tenant INTEGER NOT NULL REFERENCES tenants (id),
    key TEXT NOT NULL REFERENCES keys (id),
    length INTEGER NOT NULL,
    received INTEGER NOT NULL DEFAULT 0,
    expires INTEGER NOT NULL,
    -- Images of a request whose sets go to a store; absent where the request says it itself.
    images INTEGER
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
    -- Whether the checksum of the whole request was found right. Nothing is published before. In a store each set has its own, which
    -- whoever computes it compares.
    checked INTEGER NOT NULL DEFAULT 0,
    -- What masks and floods are expanded from; gone as soon as no attempt can follow.
    secret BLOB,
    created INTEGER NOT NULL,
    started INTEGER,
    finished INTEGER,
    expires INTEGER,
    error TEXT
) STRICT;

-- The sets of jobs that wait or run, and where results are in a store also of those that are done. Each is computed under a lease,
-- and its result is published once.
CREATE TABLE IF NOT EXISTS sets (
    job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    -- The last lease of the set: no earlier one may publish its result.
    lease INTEGER UNIQUE,
    -- The worker that has it, or had it; absent where it is the service itself.
    worker TEXT,
    -- Seconds since 1970 at which the lease ends; absent where nobody has it.
    expires INTEGER,
    -- Whether the result is published.
    done INTEGER NOT NULL DEFAULT 0,
    -- Leases that were not given back in good order.
    attempts INTEGER NOT NULL DEFAULT 0,
    -- And those that a worker ended with an error.
    failures INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (job, number)
) STRICT;

-- The number of the last lease. It only rises, and is never set back.
CREATE TABLE IF NOT EXISTS leases (
    id INTEGER PRIMARY KEY CHECK (id = 0),
    last INTEGER NOT NULL
) STRICT;
INSERT OR IGNORE INTO leases VALUES (0, 0);

CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state, seq);
CREATE INDEX IF NOT EXISTS jobs_by_tenant ON jobs (tenant, seq);
CREATE INDEX IF NOT EXISTS uploads_by_tenant ON uploads (tenant);
CREATE INDEX IF NOT EXISTS sets_to_do ON sets (job, number) WHERE done = 0;
