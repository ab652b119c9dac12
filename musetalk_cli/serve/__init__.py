"""The service: many faces on one device, reached by WebRTC, WebSocket and HTTP."""
