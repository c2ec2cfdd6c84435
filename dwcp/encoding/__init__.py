"""HDE: batch codecs and the choice among them."""
