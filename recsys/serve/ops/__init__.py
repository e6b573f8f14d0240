"""What operators see and do: metrics, traces, the replay of logged rankings, an HTTP port of their own."""
