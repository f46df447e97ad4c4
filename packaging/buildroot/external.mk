include $(sort $(wildcard $(BR2_EXTERNAL_KOBUNE_PATH)/package/*/*.mk))
