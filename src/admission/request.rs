//! The parts of a review that are used.

use serde_json::Value;

/// A parsed review.
pub struct Request<'a> {
    pub uid: &'a str,
    pub operation: &'a str,
    pub object: Option<&'a Value>,
    pub old: Option<&'a Value>,
    pub namespace: Option<&'a str>,
    /// The user.
    pub user: Option<&'a Value>,
}

impl<'a> Request<'a> {
    pub fn read(review: &'a Value) -> Result<Self, String> {
        let text = |at: &str| review.pointer(at).and_then(Value::as_str);
        if (text("/apiVersion"), text("/kind")) != (Some("admission.k8s.io/v1"), Some("AdmissionReview")) {
            return Err("not an AdmissionReview of admission.k8s.io/v1".to_owned());
        }
        let uid = text("/request/uid").ok_or("the review has no request.uid")?;
        let operation = text("/request/operation").ok_or("the review has no request.operation")?;
        let object = |at: &str| review.pointer(at).filter(|o| o.is_object());
        let (new, old) = (object("/request/object"), object("/request/oldObject"));
        if matches!(operation, "CREATE" | "UPDATE") && new.is_none() {
            return Err("the review has no request.object".to_owned());
        }
        let user = object("/request/userInfo");
        Ok(Self { uid, operation, object: new, old, namespace: text("/request/namespace"), user })
    }

    /// The object, unless it is being deleted.
    pub fn living(&self) -> Option<&'a Value> {
        let object = self.object.filter(|_| matches!(self.operation, "CREATE" | "UPDATE"))?;
        let is_going = object.pointer("/metadata/deletionTimestamp").is_some_and(|t| !t.is_null());
        (!is_going).then_some(object)
    }

    /// The object to validate; `None` if there is none.
    pub fn subject(&self) -> Option<&'a Value> {
        let object = self.living()?;
        let is_same = self.old.is_some_and(|old| old.get("spec") == object.get("spec"));
        (!is_same).then_some(object)
    }
}
