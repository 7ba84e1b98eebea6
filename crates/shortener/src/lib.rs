//! A URL shortener on Quorate: the HTTP front end.
