//! Assessments and policy to a plan, every hold with its reason; the adaptive sample rate.
