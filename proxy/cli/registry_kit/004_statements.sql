-- Tiergate's tenant registry, version 4: a statement tells of its changes once, however many rows it has changed.
--
-- The triggers of version 1 told of each row, so that an UPDATE of a hundred thousand tenants kept every proxy busy for
-- seconds. Now the names stand together; where they are too many for one notice it is {"all": true}.

CREATE OR REPLACE FUNCTION tiergate_registry.tell_statement() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    most CONSTANT int := 100;
    names text[];
    said text;
BEGIN
    IF TG_OP = 'INSERT' THEN
        names := ARRAY(SELECT unnest(ARRAY[r.tenant_code, r.tenant_id::text]) FROM new_rows AS r LIMIT most + 1);
    ELSIF TG_OP = 'DELETE' THEN
        names := ARRAY(SELECT unnest(ARRAY[r.tenant_code, r.tenant_id::text]) FROM old_rows AS r LIMIT most + 1);
    ELSE
        names := ARRAY(
            SELECT unnest(ARRAY[r.tenant_code, r.tenant_id::text])
            FROM (SELECT o.tenant_code, o.tenant_id FROM old_rows AS o
                  UNION SELECT n.tenant_code, n.tenant_id FROM new_rows AS n) AS r
            LIMIT most + 1);
    END IF;
    IF names = '{}' THEN
        RETURN NULL;
    END IF;
    said := json_build_object(
        'names', (SELECT json_agg(DISTINCT n) FROM unnest(names) AS n),
        'change', nextval('tiergate_registry.change'))::text;
    IF cardinality(names) > most OR octet_length(said) > 7000 THEN  -- a notice has 8000 bytes at most
        said := json_build_object('all', true, 'change', nextval('tiergate_registry.change'))::text;
    END IF;
    PERFORM pg_notify('tiergate_registry', said);
    RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION tiergate_registry.tell_statement() FROM PUBLIC;

DROP TRIGGER IF EXISTS tiergate_tell_inserted ON public.tenant_registry;
CREATE TRIGGER tiergate_tell_inserted AFTER INSERT ON public.tenant_registry
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION tiergate_registry.tell_statement();
DROP TRIGGER IF EXISTS tiergate_tell_updated ON public.tenant_registry;
CREATE TRIGGER tiergate_tell_updated AFTER UPDATE ON public.tenant_registry
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION tiergate_registry.tell_statement();
DROP TRIGGER IF EXISTS tiergate_tell_deleted ON public.tenant_registry;
CREATE TRIGGER tiergate_tell_deleted AFTER DELETE ON public.tenant_registry
    REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION tiergate_registry.tell_statement();
DROP TRIGGER IF EXISTS tiergate_tell ON public.tenant_registry;

CREATE OR REPLACE FUNCTION tiergate_registry.version() RETURNS int
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT 4';
