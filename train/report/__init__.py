"""What was trained: measured again, used on images, looked into, drawn."""
