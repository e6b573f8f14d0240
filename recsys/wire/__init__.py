"""The language of the wire, shared by client and server: protobuf <-> values, errors <-> status details."""
