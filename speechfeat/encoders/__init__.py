"""Speech encoders: one module a family behind one interface (`base.Backbone`)."""
