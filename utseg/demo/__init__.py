"""The whole walk on a synthetic cohort: from a cine phantom to scores of seen and unseen vendors, in minutes on two cores."""
