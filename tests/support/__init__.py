"""What tests share: real Redis and imserver processes, a raw WebSocket client, waiting with a limit."""
