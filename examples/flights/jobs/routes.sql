-- Each route with at least so many flights.
CREATE VIEW flown AS
SELECT
    origin,
    dest,
    count(*) AS flights,
    count(DISTINCT carrier) AS carriers,
    max(distance) AS distance,
    CAST(sum(air_time) AS DECIMAL(18, 0)) AS minutes,
    CAST(count(air_time) AS DECIMAL(18, 0)) AS arrived,
    CAST(sum(distance) FILTER (WHERE air_time IS NOT NULL) AS DECIMAL(18, 0)) AS miles
FROM gdp.flights
GROUP BY origin, dest
HAVING count(*) >= 1;

-- share, place:  among these routes from the same airport; of equally many flights by destination.
-- miles_an_hour: of all that arrived, together.
INSERT INTO kpi.routes
SELECT
    origin,
    dest,
    airports.name AS airport,
    flights,
    carriers,
    distance,
    CAST(rank() OVER (PARTITION BY origin ORDER BY flights DESC, dest) AS BIGINT) AS place,
    CAST(
        CAST(flights AS DECIMAL(18, 0))
            / CAST(sum(flights) OVER (PARTITION BY origin) AS DECIMAL(18, 0))
        AS DECIMAL(9, 6)
    ) AS share,
    CAST(minutes / nullif(arrived, 0) AS DECIMAL(10, 2)) AS mean_air_time,
    CAST(CAST(miles * 60 AS DECIMAL(18, 0)) / minutes AS DECIMAL(10, 2)) AS miles_an_hour
FROM flown
LEFT JOIN gdp.airports ON airports.faa = flown.dest
ORDER BY origin, dest;
