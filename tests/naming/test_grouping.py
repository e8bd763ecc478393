"""Patients from case names: known answers for real data sets, what is unclear, and that no patient reaches two
splits.
"""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anatogen.data.split import DEFAULT_SHARES, split_patients
from anatogen.naming.grouping import group_by_name

# Names as the data sets have them, and who is who: the same letter is the same patient.
TOGETHER = {
    "ACDC": ("patient001_frame01 patient001_frame12 patient002_frame01 patient002_frame12", "aabb"),
    "ACDC with 4D": ("patient001_4d patient001_frame01 patient101_4d", "aab"),
    "M&Ms": ("A0S9V9_ED A0S9V9_ES B3F0V9_ED B3F0V9_ES", "aabb"),
    "M&Ms-2": ("001_SA_ED 001_LA_ES 002_SA_ED 160_LA_ED", "aabc"),
    "BraTS 2020": ("BraTS20_Training_001 BraTS20_Training_002 BraTS20_Training_003", "abc"),
    "BraTS 2021": ("BraTS2021_00000 BraTS2021_00002 BraTS2021_01010", "abc"),
    "BraTS 2019": ("BraTS19_2013_10_1 BraTS19_2013_11_1 BraTS19_CBICA_AAB_1 BraTS19_TCIA01_131_1", "abcd"),
    "BraTS-GLI": ("BraTS-GLI-00000-000 BraTS-GLI-00003-000 BraTS-GLI-00003-001", "abb"),
    "LiTS": ("volume-0 volume-1 volume-10 volume-11", "abcd"),
    "KiTS": ("case_00000 case_00001 case_00400", "abc"),
    "AMOS": ("amos_0001 amos_0004 amos_0500", "abc"),
    "ISIC": ("ISIC_0000000 ISIC_0000001 ISIC_0012345", "abc"),
    "CAMUS": ("patient0001_2CH_ED patient0001_4CH_ES patient0001_2CH_half_sequence patient0450_2CH_ED", "aaab"),
    "OASIS-1": ("OAS1_0001_MR1 OAS1_0001_MR2 OAS1_0002_MR1", "aab"),
    "OASIS-1 and 2": ("OAS1_0001_MR1 OAS2_0001_MR1 OAS2_0001_MR2", "abb"),
    "OASIS-3": ("OAS30001_MR_d0129 OAS30001_MR_d0757 OAS30002_MR_d0653", "aab"),
    "ADNI": ("002_S_0295_m12 002_S_0295_bl 002_S_0413_bl", "aab"),
    "ADNI's files": (
        "ADNI_002_S_0295_MR_MP-RAGE__br_raw_20060418193713091_1_S13408_I13722 "
        "ADNI_002_S_0295_MR_MP-RAGE__br_raw_20070525074423632_1_S32678_I55275 "
        "ADNI_002_S_0413_MR_MP-RAGE__br_raw_20060502095132_1_S13893_I14437",
        "aab",
    ),
    "Hippocampus": ("hippocampus_001 hippocampus_003 hippocampus_394", "abc"),
    "the other Decathlon sets": ("la_003 la_004 la_005", "abc"),
    "OpenKBP": ("pt_241 pt_242 pt_340", "abc"),
    "fastMRI knee": ("file1000001 file1000002 file1002567", "abc"),
    "fastMRI brain": (
        "file_brain_AXT2_200_2000001 file_brain_AXT2_200_2000002 file_brain_AXFLAIR_201_6002875", "abc",
    ),
    "TotalSegmentator": ("s0000 s0011 s1429", "abc"),
    "CHAOS": ("1_T1DUAL_InPhase 1_T1DUAL_OutPhase 1_T2SPIR 2_T2SPIR 40_T2SPIR", "aaabc"),
    "BIDS": ("sub-00_ses-m00 sub-00_ses-m12 sub-01_ses-m00_run-1_T1w sub-01_ses-m00_run-2_T1w", "aabb"),
    "ATLAS": ("sub-r001s001_ses-1 sub-r001s002_ses-1 sub-r002s001_ses-1", "abc"),
    "IXI": ("IXI002-Guys-0828-T1 IXI002-Guys-0828-T2 IXI012-HH-1211-T1", "aab"),
    "CHASE": ("Image_01L Image_01R Image_02L Image_02R", "aabb"),
    "BUSI": ("benign (1)|benign (2)|malignant (1)|normal (1)", "abcd"),
    "HRF": ("01_dr 01_g 01_h 02_h", "abcd"),
    "DRIVE": ("21_training 22_training 01_test 02_test", "abcd"),
    "TCGA": ("TCGA_CS_4941_19960909_1 TCGA_CS_4941_19960909_2 TCGA_CS_4942_19970222_1", "aab"),
    "autoPET": (
        "psma_95b833d65be26d2f_2018-04-23 psma_95b833d65be26d2f_2019-05-01 fdg_0af7ffe12a_05-23-2004 "
        "fdg_1b2c3d4e5f_01-02-2003",
        "aabc",
    ),
    "HNTS-MRG": ("2_preRT_T2 2_midRT_T2 5_preRT_T2 5_midRT_T2", "aabb"),
    "CBIS-DDSM": ("Mass-Training_P_00001_LEFT_CC Mass-Training_P_00001_LEFT_MLO Mass-Training_P_00004_LEFT_CC", "aab"),
    "INbreast": (
        "20586908_6c613a14b80a8591_MG_R_CC_ANON 20586934_6c613a14b80a8591_MG_L_CC_ANON "
        "20587054_b6a4f750c6df4f90_MG_R_CC_ANON",
        "aab",
    ),
    "LIDC": ("LIDC-IDRI-0001 LIDC-IDRI-0002 LIDC-IDRI-1012", "abc"),
    "UCSF-PDGM": ("UCSF-PDGM-0004 UCSF-PDGM-0433 UCSF-PDGM-0433_FU003d", "abb"),
    "EchoNet": ("0X1A05DFFFCAFB253B 0X1A0A263B22CCD966 0X1A2A76BDB5B98BED", "abc"),
    "iSeg": ("subject-1-T1 subject-1-T2 subject-2-T1", "aab"),
    "slices of volumes": ("vol12_slice_34 vol12_slice_35 vol13_slice_34 vol14_z034", "aabc"),
    "phases": ("07_arterial 07_venous 08_arterial", "aab"),
    "words for visits": ("anna_baseline anna_followup berta_baseline", "aab"),
    "visits by number": ("11_visit1 11_visit2 12_v1 12_v3", "aabb"),
    "dates": ("007_20190101 007_20200317 008_20190101", "aab"),
    "test and retest": ("001_test 001_retest 002_test 002_retest", "aabb"),
    "a patient's number, then another": ("patient01_3 patient01_4 patient02_3", "aab"),
    "scans without a patient": ("frame01 frame02 T1 T2", "abcd"),
    "a year before every name": ("2023_scan_001 2023_scan_002 2023_scan_003", "abc"),
    "sites": ("site1_scan_001 site1_scan_002 site2_scan_001", "abc"),
    "names of people": ("anna berta clara", "abc"),
    "no second number that varies": ("prefix_07_1 prefix_08_1 prefix_09_1", "abc"),
    "UUIDs": (
        "3f2a1111-aaaa-4bbb-8ccc-000000000001 3f2a1112-aaaa-4bbb-8ccc-000000000002 "
        "3f2a1112-aaab-4bbb-8ccc-000000000002",
        "abc",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", TOGETHER)
def test_known_answers(kind: str) -> None:
    text, letters = TOGETHER[kind]
    names = text.split("|" if "|" in text else None)
    found = group_by_name(names)
    assert found.question is None, found.question
    for i, a in enumerate(names):
        for j, b in enumerate(names):
            assert (found.patients[a] == found.patients[b]) == (letters[i] == letters[j]), (a, b)
    assert found.joined == (len(set(letters)) < len(letters)) == bool(found.summary())
    if not found.joined:  # splits of such sets stay as they were, bit for bit
        assert all(found.patients[name] == name for name in names)


def test_what_was_grouped_is_said() -> None:
    found = group_by_name(f"patient{p:03d}_frame{f}" for p in range(4) for f in ("01", "12"))
    assert found.summary() == (
        "8 cases are 4 patients, by their names (frame): patient000_frame01 and patient000_frame12 are both patient000"
    )


@pytest.mark.parametrize(
    ("names", "one", "two"),
    [
        ([f"prefix_{i:02d}_{j}" for i in range(4) for j in (1, 2)], 4, 8),
        (["p01_s02", "p01_s03", "p02_s02"], 2, 3),
        (["a1", "a2", "b1", "b2"], 2, 4),
        (["01_pear", "01_fig", "02_fig"], 2, 3),
        (["slice_07_2", "slice_07_3", "slice_08_2"], 2, 3),
        ([f"prefix_{i:02d}_{j}_ED" for i in range(4) for j in (1, 2)], 4, 8),
        ([f"{i:04d}-{j}" for i in range(3) for j in range(2)], 3, 6),
        (["9001_17", "9002_17", "9003_18", "9004_18"], 2, 4),
    ],
)
def test_what_is_unclear_is_asked_with_patterns_that_work(names: list[str], one: int, two: int) -> None:
    found = group_by_name(names)
    question = found.question
    assert question is not None and question.patients == (one, two)
    assert all(example in question.problem for example in question.examples)
    answers = []
    for pattern in (question.together, question.apart):
        matches = [re.search(pattern, name) for name in names]
        assert all(matches), pattern
        answers.append([m[1] if m.re.groups else m[0] for m in matches if m])
        assert f"'{pattern}'" in question.hint or f" {pattern} " in question.hint
    assert (len(set(answers[0])), len(set(answers[1]))) == (one, two)
    a, b = (names.index(example) for example in question.examples)
    assert answers[0][a] == answers[0][b] and answers[1][a] != answers[1][b]


def test_where_no_pattern_says_it_a_table_is_named() -> None:
    names = ["x1_y2", "x1_y3", "x2_y1", "3-q-2_r 1", "q-2-x_r 1_3", "y_2_x_1", "y_2_x_3", "y_3_x_3"]
    question = group_by_name(names).question
    assert question is not None and not question.together
    assert question.hint == "Name the patients with --patients FILE.csv, a table with the columns case and patient"


PIECES = ["patient", "sub-", "case_", "", "site1_", "x"]
SCANS = ["", "_frame01", "_frame12", "_ED", "_ES", "_ses-1", "_T1", "_T2w", "_visit2", "_L", "_20190203"]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.builds(
            lambda start, number, scan: f"{start}{number:03d}{scan}",
            st.sampled_from(PIECES), st.integers(1, 30), st.sampled_from(SCANS),
        ),
        min_size=4, max_size=40, unique=True,
    ),
    st.integers(0, 3),
)  # fmt: skip
def test_no_patient_reaches_two_splits(names: list[str], seed: int) -> None:
    found = group_by_name(names)
    assert set(found.patients) == set(names)
    if len(set(found.patients.values())) < 4:
        return
    splits = split_patients(found.patients.values(), DEFAULT_SHARES, seed)
    of_case = {name: splits[found.patients[name]] for name in names}
    for a in names:
        for b in names:
            if found.patients[a] == found.patients[b]:
                assert of_case[a] == of_case[b]
    if found.question is None:  # and what the words say is what was put together
        for start in ("patient", "sub-"):
            for number in range(1, 31):
                own = [n for n in names if n.startswith(f"{start}{number:03d}")]
                assert len({of_case[n] for n in own}) <= 1


@given(st.lists(st.text(max_size=20), max_size=12, unique=True))
def test_any_name_is_taken(names: list[str]) -> None:
    found = group_by_name(names)
    assert list(found.patients) == names and all(found.patients[n] or not n for n in names)
