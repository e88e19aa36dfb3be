"""What the broker decides, as a pure state machine: `machine.Broker.step(event, now) -> actions`. No socket, process, file or clock here."""
