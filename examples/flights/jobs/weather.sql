-- Each flight with the weather where it left, in the hour in which it was to leave.
CREATE VIEW seen AS
SELECT
    flights.origin,
    CASE
        WHEN weather.precipitation IS NULL THEN 'unknown'
        WHEN weather.visibility < 2 THEN 'fog'
        WHEN weather.precipitation = 0 THEN 'dry'
        WHEN weather.precipitation < CAST('0.10' AS DECIMAL(6, 2)) THEN 'rain'
        ELSE 'heavy rain'
    END AS weather,
    flights.cancelled,
    flights.dep_delay,
    weather.temperature
FROM gdp.flights
LEFT JOIN gdp.weather ON weather.origin = flights.origin AND weather.hour = flights.hour;

INSERT INTO kpi.weather
SELECT
    origin,
    weather,
    count(*) AS flights,
    count(*) FILTER (WHERE cancelled) AS cancelled,
    CAST(
        CAST(count(*) FILTER (WHERE cancelled) AS DECIMAL(18, 0)) / CAST(count(*) AS DECIMAL(18, 0))
        AS DECIMAL(9, 6)
    ) AS cancelled_share,
    CAST(
        CAST(sum(dep_delay) AS DECIMAL(18, 0)) / nullif(CAST(count(dep_delay) AS DECIMAL(18, 0)), 0)
        AS DECIMAL(12, 4)
    ) AS mean_dep_delay,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY CAST(dep_delay AS DOUBLE)) AS median_dep_delay,
    percentile_cont(0.95) WITHIN GROUP (ORDER BY CAST(dep_delay AS DOUBLE)) AS p95_dep_delay,
    min(temperature) AS coldest
FROM seen
GROUP BY origin, weather
ORDER BY origin, weather;
