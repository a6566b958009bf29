"""What helper, imserver and operator must agree on: keys, slots, records, log entries, scripts.
Pure: nothing here does I/O, so each rule is tested without a Redis."""
