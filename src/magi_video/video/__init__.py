"""Video files and pictures: reading, seeking, inspecting, writing."""
