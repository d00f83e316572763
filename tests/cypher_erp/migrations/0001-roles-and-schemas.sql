-- Migration 0001: roles and schemas
-- Cypher ERP, B2B module
--
-- Group roles (b2b_rw, erp_rw, report_ro) hold the privileges; login roles (b2b_app, erp_app, report_app) are their
-- members. Roles belong to the whole cluster: one that exists already, from another database, is kept as it is.
-- Nothing is granted on the database itself or on schema public, so that the roles can be dropped with the schemas.
-- Needs CREATE on the database and CREATEROLE (or the six roles in place).

-- UP

DO $roles$
DECLARE
    wanted record;
BEGIN
    FOR wanted IN
        SELECT *
        FROM (VALUES
            ('b2b_rw', 'NOLOGIN', 'Cypher ERP: reads and writes schema b2b and the shared outbox'),
            ('erp_rw', 'NOLOGIN', 'Cypher ERP: reads and writes schema erp and the shared outbox, reads b2b'),
            ('report_ro', 'NOLOGIN', 'Cypher ERP: reads all three schemas'),
            ('b2b_app', 'LOGIN', 'Cypher ERP: the B2B shop'),
            ('erp_app', 'LOGIN', 'Cypher ERP: the back office'),
            ('report_app', 'LOGIN', 'Cypher ERP: reports')
        ) AS r (name, login, description)
    LOOP
        IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = wanted.name) THEN
            CONTINUE;
        END IF;
        BEGIN
            EXECUTE format('CREATE ROLE %I %s NOSUPERUSER NOCREATEDB NOCREATEROLE', wanted.name, wanted.login);
            EXECUTE format('COMMENT ON ROLE %I IS %L', wanted.name, wanted.description);
        EXCEPTION
            -- A migration of another database of this cluster was faster.
            WHEN duplicate_object OR unique_violation THEN
                RAISE NOTICE 'role % exists already', wanted.name;
        END;
    END LOOP;

    FOR wanted IN
        SELECT *
        FROM (VALUES ('b2b_rw', 'b2b_app'), ('erp_rw', 'erp_app'), ('report_ro', 'report_app')) AS m (grp, member)
    LOOP
        IF NOT EXISTS (
            SELECT
            FROM pg_catalog.pg_auth_members AS m
            JOIN pg_catalog.pg_roles AS g ON g.oid = m.roleid
            JOIN pg_catalog.pg_roles AS u ON u.oid = m.member
            WHERE g.rolname = wanted.grp AND u.rolname = wanted.member
        ) THEN
            EXECUTE format('GRANT %I TO %I', wanted.grp, wanted.member);
        END IF;
    END LOOP;
END
$roles$;

CREATE SCHEMA b2b;
CREATE SCHEMA erp;
CREATE SCHEMA shared;

COMMENT ON SCHEMA b2b IS 'B2B shop: catalogue, customers, orders, credit';
COMMENT ON SCHEMA erp IS 'Back office';
COMMENT ON SCHEMA shared IS 'What the shop and the back office exchange: outbox, subscriptions, operations views';

-- Privileges for what later migrations create; they go with the schemas.
ALTER DEFAULT PRIVILEGES IN SCHEMA b2b GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO b2b_rw;
ALTER DEFAULT PRIVILEGES IN SCHEMA b2b GRANT SELECT ON TABLES TO erp_rw, report_ro;
ALTER DEFAULT PRIVILEGES IN SCHEMA b2b GRANT USAGE, SELECT ON SEQUENCES TO b2b_rw;
ALTER DEFAULT PRIVILEGES IN SCHEMA b2b GRANT EXECUTE ON FUNCTIONS TO b2b_rw;

ALTER DEFAULT PRIVILEGES IN SCHEMA erp GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO erp_rw;
ALTER DEFAULT PRIVILEGES IN SCHEMA erp GRANT SELECT ON TABLES TO report_ro;
ALTER DEFAULT PRIVILEGES IN SCHEMA erp GRANT USAGE, SELECT ON SEQUENCES TO erp_rw;
ALTER DEFAULT PRIVILEGES IN SCHEMA erp GRANT EXECUTE ON FUNCTIONS TO erp_rw;

ALTER DEFAULT PRIVILEGES IN SCHEMA shared GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO b2b_rw, erp_rw;
ALTER DEFAULT PRIVILEGES IN SCHEMA shared GRANT SELECT ON TABLES TO report_ro;
ALTER DEFAULT PRIVILEGES IN SCHEMA shared GRANT USAGE, SELECT ON SEQUENCES TO b2b_rw, erp_rw;
ALTER DEFAULT PRIVILEGES IN SCHEMA shared GRANT EXECUTE ON FUNCTIONS TO b2b_rw, erp_rw;

CREATE FUNCTION b2b.set_timestamps() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    NEW.created_at := coalesce(NEW.created_at, now());
    NEW.updated_at := coalesce(NEW.updated_at, NEW.created_at);
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION b2b.set_timestamps() IS 'BEFORE INSERT: fills created_at and updated_at';

CREATE FUNCTION b2b.update_updated_at() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION b2b.update_updated_at() IS 'BEFORE UPDATE: stamps updated_at';

CREATE FUNCTION grant_schema_permissions() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    GRANT USAGE ON SCHEMA b2b TO b2b_rw, erp_rw, report_ro;
    GRANT USAGE ON SCHEMA erp TO erp_rw, report_ro;
    GRANT USAGE ON SCHEMA shared TO b2b_rw, erp_rw, report_ro;
    GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA b2b TO b2b_rw;
    GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA erp TO erp_rw;
    GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA shared TO b2b_rw, erp_rw;
    GRANT SELECT ON ALL TABLES IN SCHEMA b2b TO erp_rw;
    GRANT SELECT ON ALL TABLES IN SCHEMA b2b, erp, shared TO report_ro;
    GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA b2b TO b2b_rw;
END
$$;
COMMENT ON FUNCTION grant_schema_permissions()
    IS 'Grants the privileges of the group roles again on everything that exists';
REVOKE ALL ON FUNCTION grant_schema_permissions() FROM PUBLIC;

CREATE FUNCTION has_schema_access(text) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT coalesce(bool_or(pg_catalog.has_schema_privilege(n.oid, 'USAGE')), false)
    FROM pg_catalog.pg_namespace AS n
    WHERE n.nspname = $1
$$;
COMMENT ON FUNCTION has_schema_access(text) IS 'Whether the current user may use the schema; false where there is none';

SELECT grant_schema_permissions();

-- DOWN (Rollback)
DROP FUNCTION IF EXISTS b2b.set_timestamps() CASCADE;
DROP FUNCTION IF EXISTS b2b.update_updated_at() CASCADE;
DROP FUNCTION IF EXISTS grant_schema_permissions() CASCADE;
DROP FUNCTION IF EXISTS has_schema_access(text) CASCADE;

DROP ROLE IF EXISTS b2b_app;
DROP ROLE IF EXISTS erp_app;
DROP ROLE IF EXISTS report_app;
DROP ROLE IF EXISTS b2b_rw;
DROP ROLE IF EXISTS erp_rw;
DROP ROLE IF EXISTS report_ro;

DROP SCHEMA IF EXISTS b2b CASCADE;
DROP SCHEMA IF EXISTS erp CASCADE;
DROP SCHEMA IF EXISTS shared CASCADE;

-- Optionally drop extensions (be careful with shared resources)
-- DROP EXTENSION IF EXISTS "uuid-ossp";
-- DROP EXTENSION IF EXISTS "pgcrypto";
