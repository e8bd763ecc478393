"""Words that case names use for patients, scans and cohorts, and data sets whose names need a special rule."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Words whose number, attached or after a separator, counts scans of a patient: frame01, ses-m12, visit_2.
COUNTED = _words(
    "frame frames fr phase ph visit vis session sess ses timepoint tp time baseline bl followup fu follow up month "
    "months mo week weeks wk day days year years yr scan scans rescan series ser study acquisition acq run rep repeat "
    "repetition echo slice slices slc sl layer patch tile crop roi lesion nodule view plane stack"
)
# The same, if the number is attached: MR1, CT2, m12, v2, z034.
ATTACHED = COUNTED | _words("mr mri ct cbct pet us m v t z d w y")
# Words that distinguish scans of one patient without a number.
SCAN_WORDS = COUNTED | _words(
    "ed es diastole systole diastolic systolic inspiration expiration insp exp inhale exhale arterial venous portal "
    "portalvenous delayed native precontrast postcontrast contrast nc ce cect ncct pre post mid prert midrt postrt "
    "preop postop retest t1 t1w t1n t1c t1ce t1gd t1km t1post t1dual t2 t2w t2f t2flair t2spir t2star t2s flair pd pdw "
    "dwi adc swi dti bold dce inphase outphase outofphase mprage mp2rage spgr bssfp cine lge stir asl mra cta ct cbct "
    "mr mri pet petct spect us xray dx xr mg fat water 1t5 3t 7t 3d 4d axial ax sagittal sag coronal cor sa la sax lax "
    "2ch 3ch 4ch 2c 4c cc mlo ap pa lat lateral frontal half sequence l r left right lt rt od os lh rh"
)
PATIENT_WORDS = _words("patient patients pat pt sub subj subject participant person volunteer")
# Words that belong to a number: train_001 and test_001 are two patients.
COHORT_WORDS = _words(
    "train training tr val valid validation test testing ts control controls case cases normal abnormal healthy benign "
    "malignant positive negative pos neg site center centre hospital institution scanner vendor batch set dataset "
    "cohort group fold arm"
)
# Data sets for which the rules above fail: the patient is the group "p" of the match, or the whole match.
KNOWN = {
    "ADNI": r"(?P<p>\d{3}_S_\d{4,5})(?!\d)",
    "OASIS": r"(?P<p>OAS\d_?\d{4})(?!\d)",
    "TCGA": r"(?P<p>TCGA[-_][A-Z0-9]{2}[-_][A-Z0-9]{4})(?![A-Z0-9])",
    "BraTS": r"^BraTS-[A-Za-z]+(?:-[A-Za-z]+)?-\d{4,5}(?=-\d{1,3}$)|^BraTS1[789]_[A-Za-z0-9]+_[A-Za-z0-9]+_\d+",
    "UPENN-GBM": r"^UPENN-GBM-\d{5}",
    "fastMRI": r"^file\d{7}(?!\d)|^file_[a-z]+_AX[A-Z0-9]+_\d+_\d+",
    "PI-CAI": r"^(?P<p>\d{5})_1\d{6}(?!\d)",
    "INbreast": r"^\d{8}_(?P<p>[0-9a-f]{16})_MG_",
    "IXI": r"^IXI\d{3}(?=-)",
    "COVID-19-CT-Seg": r"^radiopaedia_\d+(?=_\d+_\d+$)",
    "HRF": r"^\d{2}_(?:dr|g|h)$",
}  # fmt: skip
