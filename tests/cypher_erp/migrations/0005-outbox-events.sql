-- Migration 0005: outbox of events
-- Cypher ERP, shared
--
-- Needs 0001. An application writes its event in the transaction of the change; a relay publishes it later. The outbox
-- is partitioned by month from the start, because a table cannot be made a partitioned one afterwards. Rows of a month
-- without a partition go to the default one.

-- UP

CREATE TYPE shared_outbox_status AS ENUM ('pending', 'processing', 'published', 'failed', 'discarded');
CREATE TYPE shared_event_domain AS ENUM ('catalog', 'customer', 'order', 'credit', 'stock');
CREATE TYPE shared_event_priority AS ENUM ('low', 'normal', 'high', 'critical');

CREATE TABLE shared.outbox_events (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    domain shared_event_domain NOT NULL,
    event_type varchar(100) NOT NULL,
    source_entity_type varchar(60) NOT NULL,
    source_entity_id uuid NOT NULL,
    correlation_id uuid,
    priority shared_event_priority NOT NULL DEFAULT 'normal',
    status shared_outbox_status NOT NULL DEFAULT 'pending',
    payload jsonb NOT NULL,
    attempts integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    locked_by varchar(100),
    locked_until timestamptz,
    last_error_code varchar(60),
    last_error varchar(2000),
    published_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (id, created_at),
    CONSTRAINT outbox_events_published_check CHECK (status <> 'published' OR published_at IS NOT NULL)
) PARTITION BY RANGE (created_at);
COMMENT ON TABLE shared.outbox_events IS 'Events to publish, a partition a month';

CREATE TABLE shared.outbox_events_2025_12 PARTITION OF shared.outbox_events
    FOR VALUES FROM ('2025-12-01 00:00:00+00') TO ('2026-01-01 00:00:00+00');
CREATE TABLE shared.outbox_events_2026_01 PARTITION OF shared.outbox_events
    FOR VALUES FROM ('2026-01-01 00:00:00+00') TO ('2026-02-01 00:00:00+00');
CREATE TABLE shared.outbox_events_2026_02 PARTITION OF shared.outbox_events
    FOR VALUES FROM ('2026-02-01 00:00:00+00') TO ('2026-03-01 00:00:00+00');
CREATE TABLE shared.outbox_events_default PARTITION OF shared.outbox_events DEFAULT;

CREATE TABLE shared.processed_events (
    event_id uuid NOT NULL,
    consumer varchar(100) NOT NULL,
    event_type varchar(100) NOT NULL,
    status varchar(20) NOT NULL CHECK (status IN ('succeeded', 'failed', 'skipped')),
    worker varchar(100),
    result jsonb,
    error_code varchar(60),
    error_message varchar(2000),
    context jsonb,
    duration_ms integer CHECK (duration_ms >= 0),
    processed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (event_id, consumer)
);
COMMENT ON TABLE shared.processed_events IS 'What a consumer has seen: makes delivery idempotent';

CREATE TABLE shared.event_subscriptions (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    consumer varchar(100) NOT NULL,
    domain shared_event_domain NOT NULL,
    event_pattern varchar(100) NOT NULL DEFAULT '*',
    is_active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (consumer, domain, event_pattern)
);

CREATE TABLE shared.dead_letter_queue (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    event_id uuid NOT NULL,
    consumer varchar(100) NOT NULL,
    reason varchar(2000) NOT NULL,
    resolved_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN shared.dead_letter_queue.event_id IS 'No foreign key: the event may be archived first';
CREATE INDEX dead_letter_queue_open_idx ON shared.dead_letter_queue (created_at) WHERE resolved_at IS NULL;

CREATE TABLE shared.event_replay (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    dead_letter_id uuid REFERENCES shared.dead_letter_queue (id) ON DELETE CASCADE,
    subscription_id uuid REFERENCES shared.event_subscriptions (id),
    requested_by text NOT NULL DEFAULT current_user,
    requested_at timestamptz NOT NULL DEFAULT now(),
    replayed_at timestamptz
);

CREATE VIEW shared.outbox_events_summary AS
SELECT domain, status, priority, count(*) AS events, min(created_at) AS oldest, max(created_at) AS newest
FROM shared.outbox_events
GROUP BY domain, status, priority;

CREATE VIEW shared.failed_events_alert AS
SELECT id, domain, event_type, attempts, last_error_code, last_error, created_at
FROM shared.outbox_events
WHERE status = 'failed' AND attempts >= 3;

CREATE VIEW shared.consumer_processing_stats AS
SELECT
    consumer,
    count(*) AS events,
    count(*) FILTER (WHERE status = 'failed') AS failed,
    avg(duration_ms)::numeric(12, 2) AS average_ms,
    max(processed_at) AS last_processed_at
FROM shared.processed_events
GROUP BY consumer;

CREATE FUNCTION shared.is_event_processed(event UUID, consumer_name VARCHAR) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT EXISTS (
        SELECT FROM shared.processed_events AS p
        WHERE p.event_id = event AND p.consumer = consumer_name AND p.status <> 'failed'
    )
$$;

CREATE FUNCTION shared.record_event_processing(
    event UUID, consumer_name VARCHAR, type_name VARCHAR, outcome VARCHAR, worker_name VARCHAR, outcome_result JSONB,
    code VARCHAR, message VARCHAR, extra JSONB, milliseconds INTEGER
) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO shared.processed_events AS p
        (event_id, consumer, event_type, status, worker, result, error_code, error_message, context, duration_ms)
    VALUES
        (event, consumer_name, type_name, outcome, worker_name, outcome_result, code, message, extra, milliseconds)
    ON CONFLICT (event_id, consumer) DO UPDATE
    SET status = excluded.status, worker = excluded.worker, result = excluded.result, error_code = excluded.error_code,
        error_message = excluded.error_message, context = excluded.context, duration_ms = excluded.duration_ms,
        processed_at = now()
    WHERE p.status = 'failed'
$$;

CREATE FUNCTION shared.get_next_events(worker_name VARCHAR, batch_size INTEGER, lease_seconds INTEGER)
RETURNS SETOF shared.outbox_events
LANGUAGE sql AS $$
    UPDATE shared.outbox_events AS o
    SET status = 'processing', locked_by = worker_name, attempts = o.attempts + 1,
        locked_until = now() + make_interval(secs => lease_seconds)
    FROM (
        SELECT c.id, c.created_at
        FROM shared.outbox_events AS c
        WHERE c.status = 'pending' OR (c.status = 'processing' AND c.locked_until < now())
        ORDER BY c.priority DESC, c.created_at
        LIMIT batch_size
        FOR UPDATE SKIP LOCKED
    ) AS next
    WHERE o.id = next.id AND o.created_at = next.created_at
    RETURNING o.*
$$;

CREATE FUNCTION shared.mark_events_processing(events UUID[]) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    changed integer;
BEGIN
    UPDATE shared.outbox_events SET status = 'processing' WHERE id = ANY (events) AND status = 'pending';
    GET DIAGNOSTICS changed = ROW_COUNT;
    RETURN changed;
END
$$;

CREATE FUNCTION shared.mark_events_published(events UUID[]) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    changed integer;
BEGIN
    UPDATE shared.outbox_events
    SET status = 'published', published_at = now(), locked_by = NULL, locked_until = NULL
    WHERE id = ANY (events) AND status = 'processing';
    GET DIAGNOSTICS changed = ROW_COUNT;
    RETURN changed;
END
$$;

CREATE FUNCTION shared.mark_events_failed(events UUID[], code VARCHAR, message VARCHAR, max_attempts INTEGER)
RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    changed integer;
BEGIN
    UPDATE shared.outbox_events
    SET status = CASE WHEN attempts >= max_attempts THEN 'failed' ELSE 'pending' END::shared_outbox_status,
        last_error_code = code, last_error = message, locked_by = NULL, locked_until = NULL
    WHERE id = ANY (events) AND status = 'processing';
    GET DIAGNOSTICS changed = ROW_COUNT;
    RETURN changed;
END
$$;

CREATE FUNCTION shared.archive_published_events(older_than_days INTEGER) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    removed integer;
BEGIN
    DELETE FROM shared.outbox_events
    WHERE status = 'published' AND published_at < now() - make_interval(days => older_than_days);
    GET DIAGNOSTICS removed = ROW_COUNT;
    RETURN removed;
END
$$;

CREATE FUNCTION shared.delete_discarded_events(older_than_days INTEGER) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    removed integer;
BEGIN
    DELETE FROM shared.outbox_events
    WHERE status = 'discarded' AND created_at < now() - make_interval(days => older_than_days);
    GET DIAGNOSTICS removed = ROW_COUNT;
    RETURN removed;
END
$$;

INSERT INTO shared.event_subscriptions (consumer, domain, event_pattern)
VALUES ('erp-sync', 'order', '*'), ('erp-sync', 'stock', '*'), ('credit-watch', 'credit', 'credit.*');

-- DOWN (Rollback)
DROP FUNCTION IF EXISTS shared.delete_discarded_events(INTEGER) CASCADE;
DROP FUNCTION IF EXISTS shared.archive_published_events(INTEGER) CASCADE;
DROP FUNCTION IF EXISTS shared.mark_events_failed(UUID[], VARCHAR, VARCHAR, INTEGER) CASCADE;
DROP FUNCTION IF EXISTS shared.mark_events_published(UUID[]) CASCADE;
DROP FUNCTION IF EXISTS shared.mark_events_processing(UUID[]) CASCADE;
DROP FUNCTION IF EXISTS shared.get_next_events(VARCHAR, INTEGER, INTEGER) CASCADE;
DROP FUNCTION IF EXISTS shared.record_event_processing(UUID, VARCHAR, VARCHAR, VARCHAR, VARCHAR, JSONB, VARCHAR, VARCHAR, JSONB, INTEGER) CASCADE;
DROP FUNCTION IF EXISTS shared.is_event_processed(UUID, VARCHAR) CASCADE;

DROP VIEW IF EXISTS shared.consumer_processing_stats;
DROP VIEW IF EXISTS shared.failed_events_alert;
DROP VIEW IF EXISTS shared.outbox_events_summary;

DROP TABLE IF EXISTS shared.event_replay CASCADE;
DROP TABLE IF EXISTS shared.dead_letter_queue CASCADE;
DROP TABLE IF EXISTS shared.event_subscriptions CASCADE;
DROP TABLE IF EXISTS shared.processed_events CASCADE;
DROP TABLE IF EXISTS shared.outbox_events CASCADE;

DROP TYPE IF EXISTS shared_event_priority;
DROP TYPE IF EXISTS shared_event_domain;
DROP TYPE IF EXISTS shared_outbox_status;
