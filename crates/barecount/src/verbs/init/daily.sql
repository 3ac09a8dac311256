-- Days of 2024 by weekday, Sunday = 0.
INSERT INTO kpi.weekdays
SELECT weekday, count(*) AS days
FROM (
    SELECT CAST(extract(dow FROM DATE '2024-01-01' + CAST(n || ' days' AS INTERVAL)) AS BIGINT) AS weekday
    FROM (SELECT unnest(range(0, 366)) AS n)
)
GROUP BY weekday;
