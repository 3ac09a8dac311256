-- seats:    of all flights together, the empty ones too; null where the planes are not known.
-- mean_age: in 2013, over flights.
INSERT INTO kpi.fleet
SELECT
    coalesce(planes.manufacturer, 'unknown') AS manufacturer,
    count(DISTINCT flights.tailnum) AS planes,
    count(*) AS flights,
    sum(planes.seats) AS seats,
    CAST(
        CAST(sum(2013 - planes.year) AS DECIMAL(18, 0))
            / nullif(CAST(count(planes.year) AS DECIMAL(18, 0)), 0)
        AS DECIMAL(8, 2)
    ) AS mean_age
FROM gdp.flights
LEFT JOIN gdp.planes ON planes.tailnum = flights.tailnum
GROUP BY coalesce(planes.manufacturer, 'unknown')
ORDER BY manufacturer;
