-- Tiergate's tenant registry, version 2: what the management API needs beside the tables of version 1.
--
-- A role that serves the API needs, besides SELECT on the tables of version 1:
--
--     GRANT INSERT, UPDATE, DELETE ON public.tenant_registry, public.tenant_metrics_daily TO the_proxys_role;
--     GRANT SELECT, INSERT ON tiergate_registry.audit TO the_proxys_role;
--     GRANT SELECT, INSERT, UPDATE, DELETE ON tiergate_registry.requests TO the_proxys_role;

-- Tenants are listed in the order of their codes, which is that of their bytes, whatever the database's collation.
CREATE INDEX IF NOT EXISTS idx_tenant_registry_listed ON public.tenant_registry(tenant_code COLLATE "C");

-- Who has changed which tenant, and what it was before and after: written with the change itself.
CREATE TABLE IF NOT EXISTS tiergate_registry.audit (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    tenant_id UUID NOT NULL,
    tenant_code TEXT NOT NULL,
    before JSONB,
    after JSONB
);
CREATE INDEX IF NOT EXISTS idx_audit_tenant ON tiergate_registry.audit(tenant_id, id);

-- What was answered to a creation with an idempotency key, for a day.
CREATE TABLE IF NOT EXISTS tiergate_registry.requests (
    actor TEXT NOT NULL,
    key TEXT NOT NULL,
    asked TEXT NOT NULL,  -- a hash of the request
    answer JSONB,
    at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    PRIMARY KEY (actor, key)
);
CREATE INDEX IF NOT EXISTS idx_requests_at ON tiergate_registry.requests(at);
REVOKE ALL ON tiergate_registry.audit, tiergate_registry.requests FROM PUBLIC;

CREATE OR REPLACE FUNCTION tiergate_registry.version() RETURNS int
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT 2';
