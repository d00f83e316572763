-- Migration 0002: catalogue, customers, prices, stock
-- Cypher ERP, B2B module
--
-- Needs 0001. Money is numeric with its currency beside it; status columns are enums (in schema public).

-- UP

CREATE TYPE b2b_product_status AS ENUM ('draft', 'active', 'discontinued', 'archived');
CREATE TYPE b2b_customer_tier AS ENUM ('standard', 'silver', 'gold', 'platinum');
CREATE TYPE b2b_customer_status AS ENUM ('pending', 'active', 'suspended', 'closed');
CREATE TYPE b2b_stock_level_status AS ENUM ('in_stock', 'low_stock', 'out_of_stock');
CREATE TYPE b2b_price_type AS ENUM ('list', 'contract', 'promotion');

CREATE TABLE b2b.products (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    sku varchar(40) NOT NULL UNIQUE,
    name text NOT NULL,
    description text,
    category varchar(60) NOT NULL,
    brand varchar(60),
    status b2b_product_status NOT NULL DEFAULT 'draft',
    list_price numeric(12, 2) NOT NULL CHECK (list_price >= 0),
    currency char(3) NOT NULL DEFAULT 'RON' CHECK (currency ~ '^[A-Z]{3}$'),
    vat_rate numeric(4, 2) NOT NULL DEFAULT 19.00 CHECK (vat_rate BETWEEN 0 AND 100),
    gross_price numeric(12, 2) GENERATED ALWAYS AS (round(list_price * (1 + vat_rate / 100), 2)) STORED,
    weight_grams integer CHECK (weight_grams > 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE b2b.products IS 'What the shop sells';
COMMENT ON COLUMN b2b.products.list_price IS 'Net price for one piece, in currency';

CREATE TABLE b2b.product_variants (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    product_id uuid NOT NULL REFERENCES b2b.products (id) ON DELETE CASCADE,
    variant_sku varchar(60) NOT NULL UNIQUE,
    title text NOT NULL,
    pack_size integer NOT NULL DEFAULT 1 CHECK (pack_size > 0),
    barcode varchar(20),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX product_variants_product_id_idx ON b2b.product_variants (product_id);

CREATE TABLE b2b.product_media (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    product_id uuid NOT NULL REFERENCES b2b.products (id) ON DELETE CASCADE,
    media_type varchar(20) NOT NULL DEFAULT 'image' CHECK (media_type IN ('image', 'video', 'document')),
    url text NOT NULL,
    position integer NOT NULL DEFAULT 1 CHECK (position > 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (product_id, position)
);

CREATE TABLE b2b.product_attributes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    product_id uuid NOT NULL REFERENCES b2b.products (id) ON DELETE CASCADE,
    name varchar(60) NOT NULL,
    value jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (product_id, name)
);

CREATE TABLE b2b.price_books (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    code varchar(30) NOT NULL UNIQUE,
    name text NOT NULL,
    currency char(3) NOT NULL DEFAULT 'RON' CHECK (currency ~ '^[A-Z]{3}$'),
    is_default boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX price_books_one_default_key ON b2b.price_books (is_default) WHERE is_default;

CREATE TABLE b2b.price_book_entries (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    price_book_id uuid NOT NULL REFERENCES b2b.price_books (id) ON DELETE CASCADE,
    variant_id uuid NOT NULL REFERENCES b2b.product_variants (id) ON DELETE CASCADE,
    price_type b2b_price_type NOT NULL DEFAULT 'list',
    min_quantity integer NOT NULL DEFAULT 1 CHECK (min_quantity > 0),
    unit_price numeric(12, 2) NOT NULL CHECK (unit_price >= 0),
    valid_from date NOT NULL DEFAULT current_date,
    valid_to date,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (price_book_id, variant_id, price_type, min_quantity, valid_from),
    CONSTRAINT price_book_entries_validity_check CHECK (valid_to IS NULL OR valid_to > valid_from)
);

CREATE TABLE b2b.stock_levels (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    variant_id uuid NOT NULL REFERENCES b2b.product_variants (id) ON DELETE CASCADE,
    warehouse_code varchar(20) NOT NULL,
    quantity_on_hand integer NOT NULL DEFAULT 0 CHECK (quantity_on_hand >= 0),
    quantity_reserved integer NOT NULL DEFAULT 0 CHECK (quantity_reserved >= 0),
    quantity_available integer GENERATED ALWAYS AS (quantity_on_hand - quantity_reserved) STORED,
    reorder_point integer NOT NULL DEFAULT 10 CHECK (reorder_point >= 0),
    status b2b_stock_level_status NOT NULL DEFAULT 'out_of_stock',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (variant_id, warehouse_code),
    CONSTRAINT stock_levels_reserved_check CHECK (quantity_reserved <= quantity_on_hand)
);

CREATE TABLE b2b.customer_tiers (
    tier b2b_customer_tier PRIMARY KEY,
    discount_percent numeric(5, 2) NOT NULL DEFAULT 0 CHECK (discount_percent BETWEEN 0 AND 100),
    payment_days integer NOT NULL DEFAULT 0 CHECK (payment_days >= 0),
    price_book_id uuid REFERENCES b2b.price_books (id),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO b2b.customer_tiers (tier, discount_percent, payment_days)
VALUES ('standard', 0, 0), ('silver', 3, 14), ('gold', 6, 30), ('platinum', 10, 60);

CREATE TABLE b2b.customers (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    customer_no bigint GENERATED BY DEFAULT AS IDENTITY UNIQUE,
    company_name text NOT NULL,
    tax_id varchar(20) NOT NULL UNIQUE,
    email text NOT NULL CHECK (position('@' IN email) > 1),
    tier b2b_customer_tier NOT NULL DEFAULT 'standard' REFERENCES b2b.customer_tiers (tier),
    status b2b_customer_status NOT NULL DEFAULT 'pending',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE b2b.customers IS 'Companies that buy';
CREATE INDEX customers_active_name_idx ON b2b.customers (company_name) WHERE status = 'active';

CREATE TABLE b2b.customer_contacts (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    customer_id uuid NOT NULL REFERENCES b2b.customers (id) ON DELETE CASCADE,
    full_name text NOT NULL,
    email text NOT NULL,
    phone varchar(30),
    is_primary boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX customer_contacts_one_primary_key ON b2b.customer_contacts (customer_id) WHERE is_primary;

CREATE TABLE b2b.customer_shipping_addresses (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    customer_id uuid NOT NULL REFERENCES b2b.customers (id) ON DELETE CASCADE,
    label varchar(60) NOT NULL,
    street text NOT NULL,
    city text NOT NULL,
    postal_code varchar(12) NOT NULL,
    country char(2) NOT NULL DEFAULT 'RO',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (customer_id, label)
);

DO $triggers$
DECLARE
    table_name text;
BEGIN
    FOREACH table_name IN ARRAY ARRAY[
        'products', 'product_variants', 'product_media', 'product_attributes', 'price_books', 'price_book_entries',
        'stock_levels', 'customer_tiers', 'customers', 'customer_contacts', 'customer_shipping_addresses'
    ]
    LOOP
        EXECUTE format(
            'CREATE TRIGGER %I BEFORE INSERT ON b2b.%I FOR EACH ROW EXECUTE FUNCTION b2b.set_timestamps()',
            table_name || '_set_timestamps', table_name
        );
        EXECUTE format(
            'CREATE TRIGGER %I BEFORE UPDATE ON b2b.%I FOR EACH ROW EXECUTE FUNCTION b2b.update_updated_at()',
            table_name || '_update_updated_at', table_name
        );
    END LOOP;
END
$triggers$;

CREATE VIEW b2b.active_catalog AS
SELECT p.id, p.sku, p.name, p.category, p.brand, p.list_price, p.currency, sum(s.quantity_available) AS available
FROM b2b.products AS p
LEFT JOIN b2b.product_variants AS v ON v.product_id = p.id
LEFT JOIN b2b.stock_levels AS s ON s.variant_id = v.id
WHERE p.status = 'active'
GROUP BY p.id;
COMMENT ON VIEW b2b.active_catalog IS 'What can be bought now, with the stock of all warehouses';

-- The back office keeps stock; the shop only reserves it.
GRANT INSERT, UPDATE ON b2b.stock_levels TO erp_rw;

-- DOWN (Rollback)
DROP TABLE IF EXISTS b2b.customer_shipping_addresses CASCADE;
DROP TABLE IF EXISTS b2b.customer_contacts CASCADE;
DROP TABLE IF EXISTS b2b.customer_tiers CASCADE;
DROP TABLE IF EXISTS b2b.customers CASCADE;
DROP TABLE IF EXISTS b2b.stock_levels CASCADE;
DROP TABLE IF EXISTS b2b.price_book_entries CASCADE;
DROP TABLE IF EXISTS b2b.price_books CASCADE;
DROP TABLE IF EXISTS b2b.product_attributes CASCADE;
DROP TABLE IF EXISTS b2b.product_media CASCADE;
DROP TABLE IF EXISTS b2b.product_variants CASCADE;
DROP TABLE IF EXISTS b2b.products CASCADE;

DROP TYPE IF EXISTS b2b_product_status;
DROP TYPE IF EXISTS b2b_customer_tier;
DROP TYPE IF EXISTS b2b_customer_status;
DROP TYPE IF EXISTS b2b_stock_level_status;
DROP TYPE IF EXISTS b2b_price_type;
