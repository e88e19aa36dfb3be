"""What goes over a socket between client, broker and worker: frames of bytes, and the messages in them."""
