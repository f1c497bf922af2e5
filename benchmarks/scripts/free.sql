-- A trial: looks at its product list.
SELECT id, name, price FROM products ORDER BY id LIMIT 10;
