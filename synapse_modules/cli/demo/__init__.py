"""The demo organisation on stock Synapse: what `govctl dev` keeps and `govctl smoke` plays through."""
