//! Owns attempts: takes assignments, drives runners, reports outcomes.
