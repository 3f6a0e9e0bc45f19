"""Pictures in, videos out, and the progress of a job."""
