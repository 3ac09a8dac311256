-- Orders by month of the order, customer and currency.
--
-- Every poll appends what is new, and each order comes once: the table is counted as it is. An order
-- that came twice would be a fault of the connector, which the pipeline's tests look for.
INSERT INTO kpi.erp_orders_monthly
SELECT
    CAST(date_trunc('month', ordered_on) AS DATE) AS month,
    customer,
    currency,
    count(*) AS orders,
    sum(lines) AS lines,
    CAST(sum(amount) AS DECIMAL(18, 2)) AS amount
FROM raw.erp_orders
GROUP BY 1, 2, 3
ORDER BY 1, 2, 3;
