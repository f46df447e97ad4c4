agent
kobune apply deployment.json
