SET LOCAL ROLE trading_procedures;

-- When positions are rolled, and how many days each roll charges: financing_schedules and financing_days as a calendar.

-- The rolls of every schedule from p_from to just before p_until, those that charge no day included.
CREATE OR REPLACE FUNCTION rolls_between(p_from timestamptz, p_until timestamptz)
RETURNS TABLE (schedule text, roll_date date, rolled_at timestamptz)
LANGUAGE sql STABLE AS $$
    SELECT s.name, r.roll_date, r.rolled_at
    FROM financing_schedules AS s
    CROSS JOIN LATERAL generate_series(
        0, (p_until AT TIME ZONE s.time_zone)::date - (p_from AT TIME ZONE s.time_zone)::date
    ) AS d (place)
    CROSS JOIN LATERAL (
        SELECT (p_from AT TIME ZONE s.time_zone)::date + d.place AS roll_date
    ) AS l
    CROSS JOIN LATERAL (
        SELECT l.roll_date, (l.roll_date + s.roll_time) AT TIME ZONE s.time_zone AS rolled_at
    ) AS r
    WHERE r.rolled_at >= p_from AND r.rolled_at < p_until
$$;

-- The days that the roll of p_date charges: what is said of that date, else of its day of the week.
CREATE OR REPLACE FUNCTION roll_days(p_schedule text, p_date date) RETURNS integer
LANGUAGE sql STABLE AS $$
    SELECT coalesce(
        (SELECT d.days FROM financing_days AS d WHERE d.schedule = p_schedule AND d.roll_date = p_date),
        (SELECT s.days[extract(ISODOW FROM p_date)::integer] FROM financing_schedules AS s WHERE s.name = p_schedule)
    )
$$;
