class FakeRay: pass
